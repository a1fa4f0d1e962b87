-- SPDX-License-Identifier: MIT
-- The inside of a pool: calls that wait, workers, and who has which call.
--
-- A call is a cell (fork_map/cell.lua).  From its start to its end it is in one
-- place: in `queue` or `again` (to be given soon, as a worker had it before), with a
-- timer until its next attempt, or in the `calls` of one worker under the number that
-- the engine gave it there.  `n_open` counts all of them, `n_waiting` the queued.
--
-- A worker is starting, then ready, then leaving: it is in `ready` only while calls may
-- be given to it.  `n_room` is how many more calls those in `ready` may have.

local cells = require "fork_map.cell"
local core = require "fork_map.core"
local histograms = require "fork_map.histogram"
local homes = require "fork_map.crew_home"
local queues = require "fork_map.queue"
local signals = require "fork_map.signal"
local workers = require "fork_map.crew_worker"

local now = core.now

local M = {}

---@class fork_map.Crew
---@field loop fork_map.Loop
---@field package n_open integer
local Crew = {}
Crew.__index = Crew
M.Crew = Crew

-- Starts of workers that fail in a row before what waits fails too.
local FAILURES_MOST = 3

-- Seconds before the next start after one that failed: doubled with each.
local PAUSE_FIRST, PAUSE_MOST = 0.01, 5

---Wait until something that concerns `name` has changed: "room" or "change".
function Crew:wait(name, is_shielded)
  signals.wait(self, name, signals.OUTSIDE, is_shielded)
end

-- While calls are open, or workers leave, the loop has something to wait for.
local function count_job(self)
  local is_busy = self.n_open > 0 or self.is_closed and self.n_workers > 0
  if is_busy ~= self.is_counted then
    self.is_counted = is_busy
    self.loop.n_jobs = self.loop.n_jobs + (is_busy and 1 or -1)
  end
end

-- -------------------------------------------------------------------- calls

local CALL = {}

-- It has its outcome, or is about to.
local function close_call(self, cell)
  cell.bytes, cell.worker = nil, nil
  self.n_open = self.n_open - 1
  count_job(self)
  if self.change then
    signals.raise(self, "change")
  end
end

local function fail_call(self, cell, err)
  close_call(self, cell)
  if err.kind ~= "cancelled" then
    self.n_failed = self.n_failed + 1
  end
  cell:fail(err)
end

local function note_waiting(self, n)
  self.n_waiting = self.n_waiting + n
  if self.room and self.n_waiting < self.max_queue then
    signals.raise(self, "room")
  end
end

---It is to be given before those that never were.
function Crew:requeue(cell)
  cell.worker = nil
  queues.push(self.again, cell)
  note_waiting(self, 1)
end

---A call that was begun has ended badly: it fails, or is tried again.
function Crew:end_badly(cell, err)
  local rules = cell.rules
  err.index, err.attempt, err.name = cell.index, cell.attempt, rules.name
  cell.worker = nil
  local is_covered = cell.attempt <= rules.retries and rules.retry_on[err.kind]
  if not is_covered or cell.stop ~= "none" or self.is_cancelled then
    fail_call(self, cell, err)
    return
  end
  local pause = rules.backoff * 2 ^ (cell.attempt - 1)
  cell.attempt = cell.attempt + 1
  self.n_retried = self.n_retried + 1
  if pause == 0 then
    self:requeue(cell)
    return
  end
  cell.timer = self.loop:at(now() + pause, function()
    cell.timer = nil
    self:requeue(cell)
    self:dispatch()
  end)
end

---A call has given its values.
function Crew:succeed(cell, n, values)
  close_call(self, cell)
  self.n_done = self.n_done + 1
  cell:succeed(n, values)
end

-- "result2.x" of the encoder is "arg2.x" here.
local function to_argument(path)
  local rest, count = path:gsub("^result(%d+)", "arg%1", 1)
  return count > 0 and rest or (path:gsub("^result", "arg1", 1))
end

---Its arguments are there: they are encoded now, so what becomes of them later is not
---seen.
function CALL.start(cell)
  local self, args = cell.crew, cell.args
  local bytes, format, reason = core.encode(self.codec, table.unpack(args, 1, args.n))
  if not bytes then
    local path = to_argument(format)
    local err = cells.new_error("encode", reason)
    err.path, err.name = path, cell.rules.name
    cell:fail(err)
    return
  end
  self.n_calls = self.n_calls + 1
  cell.bytes, cell.format = bytes, format
  cell.index, cell.attempt, cell.args = self.n_calls, 1, nil
  cell.submitted = now()
  cell:move("state", "started")
  self.n_open = self.n_open + 1
  count_job(self)
  queues.push(self.queue, cell)
  self.n_waiting = self.n_waiting + 1
  if self.is_closed then -- while it waited for its arguments
    note_waiting(self, -1)
    fail_call(self, cell, M.new_closed_error())
    return
  end
  self:dispatch()
end

function CALL.status(cell)
  local worker = cell.worker
  return worker and core.begun_at(worker.core, cell.number) and "running" or "queued"
end

function CALL.pid(cell)
  local worker = cell.worker
  return worker and core.pid(worker.core)
end

-- It is in no worker any more, or never was: out of its queue, which passes over it.
local function cancel_waiting(self, cell)
  if not cell.timer then
    note_waiting(self, -1)
  end
  close_call(self, cell)
  cell:fail(cells.new_error("cancelled", "the call was cancelled"))
  return true
end

function CALL.cancel(cell, grace)
  local self, worker = cell.crew, cell.worker
  if not worker then
    return cancel_waiting(self, cell)
  elseif worker:take_back(cell) then
    close_call(self, cell)
    cell:fail(cells.new_error("cancelled", "the call was cancelled"))
    self:dispatch()
    return true
  end
  return worker:stop_for(cell, "cancelled", grace or cell.rules.grace)
end

-- The engine was closed.
function CALL.close(cell)
  local self = cell.crew
  if not cell.bytes then
    return
  elseif cell.worker then
    cell.worker:forget(cell)
  elseif not cell.timer then
    note_waiting(self, -1)
  end
  close_call(self, cell)
end

---@return fork_map.Cell
---@param rules? table what it has of its own
function Crew:new_call(rules)
  local cell = cells.new(self.loop, "call", CALL)
  cell.crew, cell.rules = self, rules or self
  return cell
end

function M.new_closed_error()
  return cells.new_error("closed", "the pool was closed")
end

-- ------------------------------------------------------------------ dispatch

-- The next call that still waits; there is one.
local function pop_waiting(self)
  while true do
    local queue = queues.is_empty(self.again) and self.queue or self.again
    local cell = queues.pop(queue)
    if not cell.is_settled then
      return cell
    end
  end
end

-- That of the ready ones which has the fewest calls.
local function find_least(self)
  local found
  for _, worker in ipairs(self.ready) do
    if worker.n == 0 then
      return worker
    elseif worker.n < self.load and (not found or worker.n < found.n) then
      found = worker
    end
  end
  return found
end

local function grow(self)
  self.grow_timer = nil
  if self.n_waiting > 0 and self.n_living < self.max then
    workers.hire(self)
  end
  self:dispatch()
end

-- More waits than the workers can be given: another one, at once if there is none,
-- or after a while.
local function watch_growth(self)
  if self.n_waiting == 0 or self.n_living >= self.max then
    if self.grow_timer then
      self.loop:stop_timer(self.grow_timer)
      self.grow_timer = nil
    end
  elseif self.hire_timer then
    return -- when its pause is over
  elseif self.n_living == 0 then
    workers.hire(self)
  elseif not self.grow_timer then
    self.grow_timer = self.loop:at(now() + self.start, function()
      grow(self)
    end)
  end
end

---Give what waits to who has room for it.
function Crew:dispatch()
  if self.is_dispatching then
    return
  end
  self.is_dispatching = true
  while self.n_waiting > 0 and self.n_room > 0 do
    local worker = find_least(self)
    local cell = pop_waiting(self)
    note_waiting(self, -1)
    if not worker:give(cell) then
      self:requeue(cell)
    end
  end
  self.is_dispatching = false
  watch_growth(self)
end

---A worker has nothing to do and nothing waits: give it what another one has not
---begun.
function Crew:share(idle)
  for _, worker in ipairs(self.ready) do
    if worker.n > 1 then
      local cell = worker:find_last()
      if worker:take_back(cell) then
        if not idle:give(cell) then
          self:requeue(cell)
          self:dispatch()
        end
        return
      end
    end
  end
end

-- ------------------------------------------------------------------ workers

---Have at least `min` of them.
function Crew:fill()
  while self.n_living < self.min and not self.is_closed and not self.hire_timer do
    workers.hire(self)
  end
end

local function fail_waiting(self, err)
  while self.n_waiting > 0 do
    local cell = pop_waiting(self)
    note_waiting(self, -1)
    local copy = workers.copy_error(err)
    copy.index, copy.attempt, copy.name = cell.index, cell.attempt, cell.rules.name
    fail_call(self, cell, copy)
  end
end

---A worker has ended before it was of any use: the next one comes after a pause, and
---what waits fails when it goes on like that.
function Crew:note_bad_start(err)
  self.n_bad = self.n_bad + 1
  if self.n_bad >= FAILURES_MOST and #self.ready == 0 then
    fail_waiting(self, err)
  end
  local pause = math.min(PAUSE_FIRST * 2 ^ (self.n_bad - 1), PAUSE_MOST)
  if not self.hire_timer and not self.is_closed then
    self.hire_timer = self.loop:at(now() + pause, function()
      self.hire_timer = nil
      self:fill()
      self:dispatch()
    end)
  end
end

local function stop_timers(self)
  for _, name in ipairs { "grow_timer", "hire_timer", "stop_timer" } do
    if self[name] then
      self.loop:stop_timer(self[name])
      self[name] = nil
    end
  end
end

---Something of a worker has changed.
function Crew:tend()
  if self.loop.is_closed then
    self.is_closed = true
  end
  if not self.is_closed then
    self:fill()
  end
  if not (self.is_closed and self.n_open == 0) then
    self:dispatch()
  else
    stop_timers(self)
    workers.dismiss(self)
    if self.n_workers == 0 then
      self.home:close()
    end
  end
  count_job(self)
  signals.raise(self, "change")
end

-- Those that have had nothing to do for so long go, down to `min`.
local function stop_idle(self)
  self.stop_timer = nil
  local time, earliest = now(), math.huge
  for i = #self.ready, 1, -1 do
    local worker = self.ready[i]
    if worker.n == 0 and self.n_living > self.min then
      if worker.idle_since + self.stop <= time then
        self.n_stopped = self.n_stopped + 1
        worker:leave()
      else
        earliest = math.min(earliest, worker.idle_since + self.stop)
      end
    end
  end
  if earliest < math.huge then
    self:watch_idle(earliest)
  end
end

---One of them has nothing to do: look at that again then.
function Crew:watch_idle(at)
  if not self.stop_timer and self.n_living > self.min and not self.is_closed then
    self.stop_timer = self.loop:at(at, function()
      stop_idle(self)
    end)
  end
end

function Crew:resize(min, max)
  self.min, self.max = min, max
  for i = #self.ready, 1, -1 do
    if self.n_living > max then
      self.ready[i]:leave()
    end
  end
  self:tend()
  self:watch_idle(now() + self.stop)
end

-- ---------------------------------------------------------------------- end

-- All calls that have not ended.
local function list_open(self)
  local open = {}
  for cell in pairs(self.loop.live) do
    if cell.crew == self then
      open[#open + 1] = cell
    end
  end
  return open
end

---No more calls.  Those that there are come to their end, or are cancelled.
function Crew:close(drains, grace)
  self.is_closed = true
  if not drains then
    self.is_cancelled = true
    for _, cell in ipairs(list_open(self)) do
      cell:cancel(grace)
    end
  end
  self:tend()
end

---From the loop: nobody has the pool any more.
function Crew:drop()
  if not self.is_closed then
    self:close(false)
  end
end

---@return table
function Crew:stats()
  local busy = 0
  for _, worker in ipairs(self.ready) do
    busy = busy + (worker.n > 0 and 1 or 0)
  end
  return {
    workers = self.n_workers, busy = busy, idle = #self.ready - busy,
    queued = self.n_waiting, running = self.n_open - self.n_waiting,
    done = self.n_done, failed = self.n_failed, retried = self.n_retried,
    retired = self.n_retired, stopped = self.n_stopped, died = self.n_died,
    events = self.n_events, wait = self.waits:summary(), run = self.runs:summary(),
  }
end

---@param loop fork_map.Loop
---@param prepared fork_map.core.Options
---@param opts table checked options of the pool, all of them set
---@return fork_map.Crew
function M.new(loop, prepared, opts)
  local self = {
    loop = loop, prepared = prepared, queue = queues.new(), again = queues.new(),
    workers = {}, ready = {}, n_workers = 0, n_living = 0, n_room = 0, n_bad = 0,
    n_waiting = 0, n_open = 0, n_calls = 0, n_done = 0, n_failed = 0, n_retried = 0,
    n_retired = 0, n_stopped = 0, n_died = 0, n_events = 0, is_closed = false,
    is_counted = false, waits = histograms.new(), runs = histograms.new(),
  }
  for name, value in pairs(opts) do
    self[name] = value
  end
  self.spec = {
    handler = opts.handler, init = opts.init or nil, exit = opts.exit or nil,
    load = opts.load, max_tasks = opts.max_tasks, max_rss = opts.max_rss, seed = opts.seed,
  }
  self.home = homes.new(self, opts)
  return setmetatable(self, Crew)
end

return M
