-- SPDX-License-Identifier: MIT
-- One worker of a pool, as its parent sees it: the calls that it has, what it says,
-- and what its end amounts to.
--
--   starting -> ready -> leaving -> ended
--                ready -> held -> ready, leaving
--
-- While it is held nothing is given to it.  It may be leaving before it was ready.
-- What it has begun when it ends badly fails with it; what it has not begun goes to
-- others, as soon as it leaves.

local cells = require "fork_map.cell"
local core = require "fork_map.core"
local loops = require "fork_map.loop"
local serving = require "fork_map.serve"

local now, hear, give = core.now, core.hear, core.give
local pack_tag, MOST_ATTEMPTS = serving.pack_tag, serving.MOST_ATTEMPTS

local M = {}

-- What core.hear() tells of.
local READY, RETIRE, EVENT, VALUE = 0, 1, 2, 3

---@class fork_map.PoolWorker
---@field core fork_map.core.Future
---@field state "starting"|"ready"|"leaving"|"ended"
---@field calls table<integer, fork_map.Cell>
---@field n integer of them
local Worker = {}
Worker.__index = Worker

-- ------------------------------------------------------------------- states

local function enter_ready(self)
  local crew = self.crew
  self.state, self.idle_since = "ready", now()
  crew.ready[#crew.ready + 1] = self
  crew.n_room = crew.n_room + crew.load - self.n
  crew.n_bad = 0
  crew:watch_idle(self.idle_since + crew.stop)
end

-- Nothing more is given to it.
local function leave_ready(self)
  local crew = self.crew
  for i, worker in ipairs(crew.ready) do
    if worker == self then
      table.remove(crew.ready, i)
      crew.n_room = crew.n_room - (crew.load - self.n)
      return
    end
  end
end

-- It counts no more among those that work.
local function begin_leaving(self)
  if self.state == "ready" then
    leave_ready(self)
  end
  if self.state ~= "leaving" and self.state ~= "ended" then
    self.state = "leaving"
    self.crew.n_living = self.crew.n_living - 1
  end
end

-- -------------------------------------------------------------------- calls

---Give it a call; false when it takes none.
function Worker:give(cell)
  local crew = self.crew
  local tag = pack_tag(cell.index, math.min(cell.attempt, MOST_ATTEMPTS))
  local number = give(self.core, cell.format, cell.bytes, tag)
  if not number then
    begin_leaving(self) -- it is ending
    return false
  end
  cell.worker, cell.number = self, number
  self.calls[number] = cell
  self.n = self.n + 1
  crew.n_room = crew.n_room - 1
  local timeout = cell.rules.timeout
  if timeout then
    self:watch_time(now() + timeout)
  end
  return true
end

---It does not have this call any more.
function Worker:forget(cell)
  self.calls[cell.number] = nil
  self.n = self.n - 1
  if self.state == "ready" then
    self.crew.n_room = self.crew.n_room + 1
  end
end

---True when the call was not begun, and never will be here.
function Worker:take_back(cell)
  if not core.take_back(self.core, cell.number) then
    return false
  end
  self:forget(cell)
  cell.worker, cell.began = nil, nil
  return true
end

-- Its calls in the order in which they were given.
local function list_calls(self)
  local list = {}
  for number in pairs(self.calls) do
    list[#list + 1] = number
  end
  table.sort(list)
  for i, number in ipairs(list) do
    list[i] = self.calls[number]
  end
  return list
end

---The call that was given last; there is one.
function Worker:find_last()
  local last = 0
  for number in pairs(self.calls) do
    last = math.max(last, number)
  end
  return self.calls[last]
end

-- What it has not begun goes to others.
local function take_back_all(self)
  local crew = self.crew
  for _, cell in ipairs(list_calls(self)) do
    if self:take_back(cell) then
      crew:requeue(cell)
    end
  end
end

---It ends when it has ended what it has begun.
function Worker:leave()
  begin_leaving(self)
  core.order_leave(self.core)
  take_back_all(self)
end

-- ------------------------------------------------------------------ messages

local function end_call(self, number, began, time, ok, ...)
  local crew, cell = self.crew, self.calls[number]
  if not cell then
    return -- the engine keeps count too: nothing comes here
  end
  self:forget(cell)
  crew.waits:add(began - cell.submitted)
  crew.runs:add(time - began)
  self.has_worked = true
  if self.n == 0 then
    self.idle_since = time
  end
  if ok then
    crew:succeed(cell, select("#", ...), { ... })
    return
  end
  local err = cells.to_error((...))
  if err.kind == "protocol" then
    begin_leaving(self)
    core.stop_worker(self.core, "protocol")
  end
  crew:end_badly(cell, err)
end

local function deliver_event(self, number, ok, value)
  local crew, cell = self.crew, self.calls[number]
  crew.n_events = crew.n_events + 1
  if ok and crew.on_event then
    local fine, err = loops.call(crew.on_event, value, cell and cell.index)
    if not fine then
      crew.loop:report(err, "callback")
    end
  end
end

-- What core.hear() has given; false when that was nothing.
local function take_message(self, time, what, number, began, ...)
  if not what then
    return false
  elseif what >= VALUE then
    end_call(self, number, began, time, ...)
  elseif what == EVENT then
    deliver_event(self, number, ...)
  elseif what == READY and self.state == "starting" then
    enter_ready(self)
  elseif what == RETIRE and (self.state == "ready" or self.state == "held") then
    self.crew.n_retired = self.crew.n_retired + 1
    begin_leaving(self)
    take_back_all(self)
  end
  return true
end

-- All that it has said so far.
local function hear_all(self)
  local time = now()
  local is_more
  repeat
    is_more = take_message(self, time, hear(self.core))
  until not is_more
end

---From the loop: it has said something, or ended.
function Worker:take()
  local crew = self.crew
  hear_all(self)
  if core.settled(self.core) then
    self:finish()
    return
  end
  if crew.n_waiting > 0 then
    crew:dispatch()
  elseif self.n == 0 and self.state == "ready" then
    if #crew.ready > 1 and crew.n_open > 1 then
      crew:share(self)
    end
    if self.n == 0 then
      crew:watch_idle(self.idle_since + crew.stop)
    end
  end
  if crew.is_closed and crew.n_open == 0 then
    crew:tend()
  end
end

-- --------------------------------------------------------------------- time

---Look at its calls at that time: whether one takes too long.
function Worker:watch_time(at)
  local loop = self.crew.loop
  if self.timer then
    if self.timer.at <= at then
      return
    end
    loop:stop_timer(self.timer)
  end
  self.timer = loop:at(at, function()
    self.timer = nil
    self:check_time()
  end)
end

-- When this call's time is over, by when it was begun; what a worker says about that
-- is believed once.
local function time_of(self, cell, time)
  local timeout = cell.rules.timeout
  if not timeout then
    return math.huge
  end
  if not cell.began or cell.began_number ~= cell.number then
    cell.began = core.begun_at(self.core, cell.number)
    cell.began_number = cell.number
  end
  return (cell.began or time) + timeout
end

function Worker:check_time()
  local time, earliest, late = now(), math.huge, {}
  for _, cell in pairs(self.calls) do
    local at = time_of(self, cell, time)
    if at <= time then
      late[#late + 1] = cell
    else
      earliest = math.min(earliest, at)
    end
  end
  if earliest < math.huge then
    self:watch_time(earliest)
  end
  for _, cell in ipairs(late) do
    if cell.worker == self and not self.culprits[cell] then
      self:stop_for(cell, "timeout", cell.rules.grace)
    end
  end
end

---End it because of this call, unless that ends meanwhile.  What is not begun goes to
---others first, so that none begins which the stop would hit.
---@return boolean effect
function Worker:stop_for(cell, kind, grace)
  local crew = self.crew
  local was = self.state
  if was == "ready" then
    leave_ready(self)
    self.state = "held"
  end
  take_back_all(self)
  if not next(self.culprits) then
    core.listen(self.core)
    hear_all(self)
  end
  if cell.worker ~= self then
    if self.state == "held" then
      enter_ready(self)
    end
    crew:dispatch()
    return false
  end
  begin_leaving(self)
  self.culprits[cell] = self.culprits[cell] or kind
  local effect = core.stop_worker(self.core, kind, grace)
  crew:tend()
  return effect
end

-- ----------------------------------------------------------------------- end

local ENDED_FOR = "the worker was ended because of another call, which %s"

-- An error of its own for another call.
local function copy_error(err)
  local copy = {}
  for key, value in pairs(err) do
    copy[key] = value
  end
  return setmetatable(copy, getmetatable(err))
end
M.copy_error = copy_error

-- What a call that it had begun fails with.
local function blame(self, cell, err)
  local kind = self.culprits[cell]
  if kind == "cancelled" then
    return cells.new_error("cancelled", "the call was cancelled")
  end
  local copy = copy_error(err)
  local _, other = next(self.culprits)
  if kind == "timeout" then
    copy.kind = "timeout"
    copy.message = ("the call took longer than its timeout of %.6g s"):format(cell.rules.timeout)
  elseif other and (copy.kind == "timeout" or copy.kind == "cancelled") then
    copy.kind = "signal"
    copy.message = ENDED_FOR:format(other == "timeout" and "took too long" or "was cancelled")
  end
  return copy
end

local function get_outcome(self)
  local ok, is_value, err = pcall(core.outcome, self.core)
  if ok and is_value then
    return nil
  end
  return cells.to_error(ok and err or is_value)
end

-- The calls that it still has.
local function end_calls(self, err)
  local crew = self.crew
  local is_closed = crew.loop.is_closed
  for _, cell in ipairs(list_calls(self)) do
    local was_begun = core.begun_at(self.core, cell.number) ~= nil
    self:forget(cell)
    cell.worker, cell.began = nil, nil
    if was_begun or is_closed then
      self.has_worked = true
      crew:end_badly(cell, blame(self, cell, err
        or cells.new_error("no_result", "the worker has left and gave no result")))
    else
      crew:requeue(cell)
    end
  end
end

---It has ended, and all that it has said was heard.
function Worker:finish()
  local crew = self.crew
  local err = get_outcome(self)
  local was_starting = self.state == "starting"
  begin_leaving(self)
  self.state = "ended"
  if self.timer then
    crew.loop:stop_timer(self.timer)
  end
  end_calls(self, err)
  core.release(self.core)
  crew.workers[self] = nil
  crew.n_workers = crew.n_workers - 1
  if err and not next(self.culprits) and err.kind ~= "closed" then
    crew.n_died = crew.n_died + 1
    if was_starting or not self.has_worked then
      crew:note_bad_start(err)
    end
  end
  crew:tend()
end

---All are to leave: there will be no more calls.
function M.dismiss(crew)
  while crew.ready[1] do
    crew.ready[1]:leave()
  end
  for worker in pairs(crew.workers) do
    local is_starting = worker.state == "starting" -- or it leaves already
    if is_starting and core.status(worker.core) == "queued" then
      core.cancel(worker.core, 0)
    elseif is_starting then
      core.order_leave(worker.core)
    end
  end
end

---Start another worker.
function M.hire(crew)
  local worker = setmetatable({
    crew = crew, state = "starting", calls = {}, n = 0, culprits = {}, has_worked = false,
  }, Worker)
  crew.n_workers, crew.n_living = crew.n_workers + 1, crew.n_living + 1
  crew.workers[worker] = true
  local ok, future = pcall(crew.home.hire, crew.home, crew, worker)
  if ok then
    worker.core = future
    return
  end
  crew.n_workers, crew.n_living = crew.n_workers - 1, crew.n_living - 1
  crew.workers[worker] = nil
  worker.state = "ended"
  crew:note_bad_start(cells.to_error(future))
end

return M
