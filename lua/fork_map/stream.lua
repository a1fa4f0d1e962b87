-- SPDX-License-Identifier: MIT
-- Verbs over many items that hand them out one by one: imap, imap_unordered; and
-- those over items that come one by one.

local core = require "fork_map.core"
local dispatch = require "fork_map.dispatch"
local inline = require "fork_map.inline"
local planning = require "fork_map.plan"
local progress = require "fork_map.progress"
local running = require "fork_map.run"
local sources = require "fork_map.source"

local M = {}

local PAUSE = 1

-- Seconds after which a stream with a source looks after its workers, which can
-- get no items while the consumer is busy.
local SERVICE = 0.001

-- Items begun and not consumed, unless option max_active says otherwise.
local ACTIVE_DEFAULT = 65536

---@class fork_map.Stream
local Stream = {}
Stream.__index = Stream

-- It has ended: where the consumer looks.
local function note_end(self, index)
  if self.is_ordered then
    self.ready[index] = true
  else
    self.last = self.last + 1
    self.queue[self.last] = index
  end
end

-- What has ended goes where the consumer looks.
local function take_log(self, logged)
  core.map_rewind(self.map, true, false)
  for k = 1, logged do
    note_end(self, self.log[k])
  end
end

-- An item that no worker can get.
function Stream:refuse(index, err)
  self.errors[index] = err
  note_end(self, index)
end

local function consume(self)
  if self.consumed > 0 then
    core.map_consume(self.map, self.consumed)
    self.consumed = 0
  end
end

local function step(self, pause)
  local map, source = self.map, self.source
  consume(self)
  local over, done, failed, logged, events = core.map_step(map, pause)
  if source then
    self.serve_at = core.now() + SERVICE
    failed = failed + source.n_refused
  end
  self.is_over, self.done, self.failed = over, done, failed
  if events > 0 then
    running.deliver_events(map, events, self.plan.opts.on_event)
  end
  if logged > 0 then
    take_log(self, logged)
  end
  if self.bar then
    self.bar:update(done, failed)
  end
end

-- Get something to hand out: items for the workers, or results of theirs.
local function serve(self, pause)
  local source = self.source
  if source then
    consume(self)
    if source:fill(self, self.next - 1) then
      pause = 0
    end
  end
  if self.map then -- not closed by the iterator
    step(self, pause)
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
    consume(self)
  end
  if err and self.plan.opts.on_error == "raise" then
    self:close()
    error(err, 0)
  end
  return index, value, err
end

local function finish(self)
  local failure, stopped
  if self.map then
    failure, stopped = core.map_failure(self.map), core.map_stopped(self.map)
  end
  self.stopped = stopped and stopped[1]
  if self.bar and self.done then
    self.bar:finish(self.done, self.failed)
  end
  self:close()
  if failure then
    error(failure, 0)
  end
end

function Stream:__call()
  if self.source and not self.is_over and core.now() >= self.serve_at then
    serve(self, 0)
  end
  while true do
    local index = pick(self)
    if index then
      return hand_out(self, index)
    elseif self.is_over then
      finish(self)
      return nil
    end
    serve(self, self.bar and 0.1 or PAUSE)
  end
end

local function open_workers(plan, is_ordered)
  local source = sources.new(plan)
  local active = source and source.active or plan.opts.max_active or ACTIVE_DEFAULT
  local map = core.map_new(plan.engine.core, plan.prepared, planning.core_opts(plan, {
    log = true, eager = true, max_active = active, stops_at_failure = false, want = plan.want,
  }), plan.fn, plan.list)
  local stream = setmetatable({
    plan = plan, map = map, source = source, serve_at = 0, is_ordered = is_ordered, next = 1,
    last = 0, ready = {}, queue = {}, consumed = 0, consume_at = math.max(1, active // 4),
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

-- Is there one more?  With the failure of one that could not have crossed.
local function has_item(self, index)
  if self.is_over then
    return false
  elseif self.source then
    return self.source:take(function()
      self:close()
    end)
  end
  return index <= self.plan.n
end

function Inline:__call()
  local plan = self.plan
  local index = self.next
  local has_one, refusal = has_item(self, index)
  if not has_one then
    return finish_inline(self)
  elseif not self.has_begun then
    begin_inline(self)
  end
  self.next = index + 1
  local ok, value = false, refusal
  if not refusal then
    ok, value = inline.run_item(plan, index, self.deadline)
  end
  local err = inline.find_late(plan, self.deadline)
  if ok == nil then
    self.stopped = value[1]
    return finish_inline(self)
  elseif err then
    return finish_inline(self, err)
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
  local opts = plan.opts
  plan.get = running.item_at
  return setmetatable({
    plan = plan, source = sources.new(plan), next = 1, done = 0, failed = 0,
    bar = progress.new(opts.progress, plan.n, 0, opts.name),
  }, Inline)
end

local function open(plan, want, is_ordered)
  plan.want = want
  if plan.bound then
    plan.get = running.item_at
    return dispatch.open(plan, is_ordered)
  end
  return plan.workers > 0 and open_workers(plan, is_ordered) or open_inline(plan)
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
  local stream = open(plan, "value", is_ordered)
  -- The fourth value is closed when the loop ends, however it does.
  return nil, stream, nil, nil, stream
end

---each() over items that an iterator gives.
---@return string? text what is wrong
---@return integer n items that ended well
---@return table? errors
---@return any stopped the value of stop()
function M.each(target, source, fn, opts)
  local plan, text = planning.make("each", target, source, fn, opts, { on_error = "raise" })
  if not plan then
    return text
  end
  local stream <close> = open(plan, "nothing", false)
  local n, errors = 0, nil
  for index, _, err in stream do
    if err then
      errors = errors or {}
      errors[index] = err
    else
      n = n + 1
    end
  end
  return nil, running.trim(n, errors, stream.stopped)
end

return M
