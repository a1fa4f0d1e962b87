-- SPDX-License-Identifier: MIT
-- Items over an executor: one call of it for each, as many at once as its workers are
-- told to be, and some more so that none of them waits for this process.
--
-- A dispatch is open until it is closed: then what is out is cancelled, and has ended
-- when close() returns.  What ends after that is not noted any more.

local async = require "fork_map.async"
local core = require "fork_map.core"
local executors = require "fork_map.executor"
local inline = require "fork_map.inline"
local loops = require "fork_map.loop"
local progress = require "fork_map.progress"
local queues = require "fork_map.queue"
local signals = require "fork_map.signal"
local sources = require "fork_map.source"

local M = {}

-- Items of a list that have begun and were not consumed.
local ACTIVE_DEFAULT = 65536

---@class fork_map.Dispatch
---@field loop fork_map.Loop
---@field open table<integer, fork_map.Future> calls that are out, by place
---@field ended table queue of the places of those that have ended
---@field results table
---@field errors table<integer, fork_map.Error>
---@field failure fork_map.Error? of the whole
local Dispatch = {}
Dispatch.__index = Dispatch

-- Raised when one of them has ended: tasks alone can do that if they do it to all.
local CHANGE = signals.new_verbs_of("open")

local function new(plan)
  local bound, source = plan.bound, sources.new(plan)
  local loop = executors.get_loop(bound) or async.get_loop(plan.engine)
  local self = setmetatable({
    plan = plan, loop = loop, source = source, last = 0, is_dry = false,
    window = plan.workers * executors.get_ahead(bound),
    active = source and source.active or plan.opts.max_active or ACTIVE_DEFAULT,
    open = {}, n_open = 0, ended = queues.new(), consumed = 0, results = {}, errors = {},
  }, Dispatch)
  local deadline = inline.get_deadline(plan)
  if deadline then
    self.timer = loop:at(deadline, function()
      self.failure = inline.find_late(plan, deadline)
      signals.raise(self, "change")
    end)
  end
  return self
end

-- The error with the number of its item.  It may be the outcome of a future that
-- others have too.
local function with_index(err, index)
  local copy = {}
  for field, value in pairs(err) do
    copy[field] = value
  end
  copy.index = index
  return setmetatable(copy, core.Error)
end

local function number_of(self, place)
  local numbers = self.plan.numbers
  return numbers and numbers[place] or place
end

-- The call for this place has settled.
local function note_end(self, place)
  local cell, want = self.open[place].cell, self.plan.want
  self.open[place] = nil
  self.n_open = self.n_open - 1
  cell.seen = true
  if self.is_closed then
    return
  elseif cell.outcome ~= "done" then
    self.errors[place] = with_index(cell.err, number_of(self, place))
  elseif want == "truth" then
    self.results[place] = not not cell.values[1]
  elseif want ~= "nothing" then
    self.results[place] = cell.values[1]
  end
  queues.push(self.ended, place)
end

-- The place of the next item and the item, or nil at the end.
local function read(self)
  local source, plan = self.source, self.plan
  if not source then
    local place = self.last + 1
    if place <= plan.n then
      return place, plan:get(number_of(self, place))
    end
    return nil
  end
  local item = source:read(function()
    self:close(0)
  end)
  if item ~= nil then
    return source.n, item
  end
end

local function start(self, place, item)
  local plan, index = self.plan, number_of(self, place)
  self.last = place
  local f = executors.spawn(plan.bound, self.loop, nil, index, plan.fn, item, index)
  self.open[place] = f
  self.n_open = self.n_open + 1
  if f.cell.is_settled then
    note_end(self, place)
    return
  end
  f.cell:add_waiter(f, function()
    note_end(self, place)
    signals.raise(self, "change")
  end)
end

-- Start what there is room for.  Calls of this process end as they start: then it is
-- the consumer's turn.
local function fill(self)
  local was_open = -1
  while not self.is_dry and self.n_open < self.window and self.n_open > was_open
    and self.last - self.consumed < self.active do
    was_open = self.n_open
    local place, item = read(self)
    if self.is_closed then -- by the iterator
      return
    elseif not place then
      self.is_dry = true
      return
    end
    start(self, place, item)
  end
end

---Wait for the next item that ends.
---@return integer? place nil when there is none, or the whole has failed
function Dispatch:take()
  while not self.is_closed and not self.failure do
    fill(self)
    if not queues.is_empty(self.ended) then
      return queues.pop(self.ended)
    elseif self.n_open == 0 then
      return nil
    end
    signals.wait(self, "change", CHANGE)
  end
end

local function cancel_open(self, grace)
  local open = {}
  for _, f in pairs(self.open) do
    open[#open + 1] = f
  end
  for _, f in ipairs(open) do
    f.cell.seen = true
    f.cell:cancel(grace)
  end
end

local function wait_for_open(self)
  while self.n_open > 0 and not self.loop.is_closed do
    signals.wait(self, "change", CHANGE, true)
  end
end

-- The wait for what was cancelled is over, perhaps because a hook of the host has
-- raised, or a task is closed by force.
local Ending = {}

function Ending:__close()
  local dispatch = self.dispatch
  if dispatch.n_open > 0 then
    cancel_open(dispatch, 0)
    wait_for_open(dispatch)
  end
end

-- From now on nothing of it goes on but what is out.
local function shut(self, grace)
  self.is_closed = true
  if self.timer then
    self.loop:stop_timer(self.timer)
  end
  cancel_open(self, grace)
end

---Cancel what is out and wait for its end.
---@param grace? number absent: that of the calls
function Dispatch:close(grace)
  if self.is_closed or self.loop:is_stale() then
    return
  end
  shut(self, grace)
  if self.n_open > 0 and not loops.find_refusal(self.loop) then
    local _ <close> = setmetatable({ dispatch = self }, Ending)
    wait_for_open(self)
  end
end

function Dispatch:__close()
  self:close(0)
end

---From the loop: nobody can ask for more.
function Dispatch:drop()
  if not self.is_closed then
    shut(self, 0)
  end
end

---Run a plan over its executor until it is over; as run() of fork_map/run.lua.
---@param bar table? of fork_map/progress.lua
function M.run(plan, more, on_log, progress_bar)
  local self <close> = new(plan)
  local bar <close> = progress_bar
  local results, errors, done, failed = self.results, self.errors, 0, 0
  for place in self.take, self do
    done, failed = done + 1, failed + (errors[place] and 1 or 0)
    self.consumed = done
    if bar then
      bar:update(done, failed)
    end
    if on_log and on_log(place, results, errors) then
      break
    elseif errors[place] and plan.opts.on_error ~= "collect" then
      self:close()
      break
    end
  end
  if bar then
    bar:finish(done, failed)
  end
  more.n_well = done - failed
  return results, errors, nil, self.failure
end

-- ------------------------------------------------------------------ streams

---What imap() gives: its collection closes the dispatch, which waiters know.
---@class fork_map.DispatchStream
local Stream = {}
Stream.__index = Stream

local function hand_out(self, place)
  local dispatch = self.dispatch
  local results, errors = dispatch.results, dispatch.errors
  local value, err = results[place], errors[place]
  results[place], errors[place] = nil, nil
  dispatch.consumed = dispatch.consumed + 1
  if err and dispatch.plan.opts.on_error == "raise" then
    self:close()
    error(err, 0)
  end
  return place, value, err
end

-- One has ended, or all.
local function note(self, place)
  if not place then
    return
  end
  self.done = self.done + 1
  self.failed = self.failed + (self.dispatch.errors[place] and 1 or 0)
  if self.bar then
    self.bar:update(self.done, self.failed)
  end
end

local function finish(self)
  local failure = self.dispatch.failure
  if self.bar then
    self.bar:finish(self.done, self.failed)
  end
  self:close()
  self.dispatch.failure = nil -- it is raised once
  if failure then
    error(failure, 0)
  end
end

function Stream:__call()
  while true do
    local place = self.is_ordered and self.next
    if place and self.ready[place] then
      self.ready[place], self.next = nil, place + 1
      return hand_out(self, place)
    end
    place = self.dispatch:take()
    note(self, place)
    if not place then
      return finish(self)
    elseif not self.is_ordered then
      return hand_out(self, place)
    end
    self.ready[place] = true
  end
end

function Stream:close()
  if self.bar then
    self.bar:__close()
    self.bar = nil
  end
  self.ready = {}
  self.dispatch:close(0)
end

Stream.__close = Stream.close

function Stream:__gc()
  local dispatch = self.dispatch
  if not dispatch.is_closed and not dispatch.loop:is_stale() then
    dispatch.loop:push_dropped(dispatch)
  end
end

---@return fork_map.DispatchStream
function M.open(plan, is_ordered)
  return setmetatable({
    dispatch = new(plan), is_ordered = is_ordered, next = 1, ready = {}, done = 0, failed = 0,
    bar = progress.new(plan.opts.progress, plan.n, plan.workers, plan.opts.name),
  }, Stream)
end

return M
