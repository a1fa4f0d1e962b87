-- SPDX-License-Identifier: MIT
-- Verbs over many items that hand them out one by one: imap, imap_unordered.

local core = require "fork_map.core"
local inline = require "fork_map.inline"
local map_verbs = require "fork_map.map"
local planning = require "fork_map.plan"
local progress = require "fork_map.progress"

local M = {}

local PAUSE = 1

-- Items begun and not consumed, unless option max_active says otherwise.
local ACTIVE_DEFAULT = 65536

---@class fork_map.Stream
local Stream = {}
Stream.__index = Stream

-- What has ended goes where the consumer looks.
local function take_log(self, logged)
  core.map_rewind(self.map, true, false)
  for k = 1, logged do
    local index = self.log[k]
    if self.is_ordered then
      self.ready[index] = true
    else
      self.last = self.last + 1
      self.queue[self.last] = index
    end
  end
end

local function step(self)
  local map = self.map
  if self.consumed > 0 then
    core.map_consume(map, self.consumed)
    self.consumed = 0
  end
  local over, done, failed, logged, events = core.map_step(map, self.bar and 0.1 or PAUSE)
  self.is_over, self.done, self.failed = over, done, failed
  if events > 0 then
    map_verbs.deliver_events(map, events, self.plan.opts.on_event)
  end
  if logged > 0 then
    take_log(self, logged)
  end
  if self.bar then
    self.bar:update(done, failed)
  end
end

-- The index to hand out next, when it has ended.
local function pick(self)
  local index
  if self.is_ordered then
    index = self.next
    if not self.ready[index] then
      return nil
    end
    self.ready[index] = nil
  else
    index = self.queue[self.next]
    if not index then
      return nil
    end
    self.queue[self.next] = nil
  end
  self.next = self.next + 1
  return index
end

function Stream:close()
  if self.bar then
    self.bar:__close()
    self.bar = nil
  end
  if self.map then
    core.map_close(self.map)
    self.map = nil
  end
  self.is_over, self.ready, self.queue = true, {}, {}
end

Stream.__close = Stream.close

local function hand_out(self, index)
  local value, err = self.results[index], self.errors[index]
  self.results[index], self.errors[index] = nil, nil
  self.consumed = self.consumed + 1
  if self.consumed >= self.consume_at and self.map then
    core.map_consume(self.map, self.consumed)
    self.consumed = 0
  end
  if err and self.plan.opts.on_error == "raise" then
    self:close()
    error(err, 0)
  end
  return index, value, err
end

local function finish(self)
  local failure = self.map and core.map_failure(self.map)
  if self.bar and self.done then
    self.bar:finish(self.done, self.failed)
  end
  self:close()
  if failure then
    error(failure, 0)
  end
end

function Stream:__call()
  while true do
    local index = pick(self)
    if index then
      return hand_out(self, index)
    elseif self.is_over then
      finish(self)
      return nil
    end
    step(self)
  end
end

local function open_workers(plan, is_ordered)
  local active = plan.opts.max_active or ACTIVE_DEFAULT
  local map = core.map_new(plan.engine.core, plan.prepared, planning.core_opts(plan, {
    log = true, eager = true, max_active = active, stops_at_failure = false,
  }), plan.fn, plan.list)
  local stream = setmetatable({
    plan = plan, map = map, is_ordered = is_ordered, next = 1, last = 0, ready = {}, queue = {},
    consumed = 0, consume_at = math.max(1, active // 4),
    bar = progress.new(plan.opts.progress, plan.n, plan.workers, plan.opts.name),
  }, Stream)
  core.map_start(map)
  stream.results, stream.errors, stream.log = core.map_tables(map)
  return stream
end

-- ------------------------------------------------------------------- inline

local Inline = {}
Inline.__index = Inline

function Inline:close()
  if not self.is_over then
    self.is_over = true
    if self.bar then
      self.bar:__close()
    end
    return self.has_begun and inline.run_hook(self.plan, self.plan.opts.exit) or nil
  end
end

Inline.__close = Inline.close

-- The end, by a failure or because there is no more.
local function finish_inline(self, err)
  if self.bar then
    self.bar:finish(self.done, self.failed)
  end
  err = self:close() or err
  if err then
    error(err, 0)
  end
end

local function begin_inline(self)
  self.has_begun = true
  self.deadline = inline.get_deadline(self.plan)
  local err = inline.run_hook(self.plan, self.plan.opts.init)
  if err then
    self.has_begun = false
    finish_inline(self, err)
  end
end

local function count_inline(self, ok)
  self.done, self.failed = self.done + 1, self.failed + (ok and 0 or 1)
  if self.bar then
    self.bar:update(self.done, self.failed)
  end
end

function Inline:__call()
  local plan = self.plan
  if self.is_over or self.next > plan.n then
    return finish_inline(self)
  elseif not self.has_begun then
    begin_inline(self)
  end
  local index = self.next
  self.next = index + 1
  local ok, value = inline.run_item(plan, index, self.deadline)
  local err = inline.find_late(plan, self.deadline)
  if ok == nil or err then
    return finish_inline(self, ok ~= nil and err or nil)
  end
  count_inline(self, ok)
  if ok then
    return index, value
  elseif plan.opts.on_error == "raise" then
    finish_inline(self, value)
  end
  return index, nil, value
end

local function open_inline(plan)
  local list, opts = plan.list, plan.opts
  plan.want = "value"
  plan.get = list and function(index)
    return list[index]
  end or function(index)
    return index
  end
  return setmetatable({
    plan = plan, next = 1, done = 0, failed = 0,
    bar = progress.new(opts.progress, plan.n, 0, opts.name),
  }, Inline)
end

---@param verb string
---@param is_ordered boolean
---@return string? text what is wrong
---@return function iterator
function M.open(verb, is_ordered, target, source, fn, opts)
  local plan, text = planning.make(verb, target, source, fn, opts, { on_error = "collect" })
  if not plan then
    return text
  end
  local stream = plan.workers > 0 and open_workers(plan, is_ordered) or open_inline(plan)
  -- The fourth value is closed when the loop ends, however it does.
  return nil, stream, nil, nil, stream
end

return M
