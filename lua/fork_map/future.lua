-- SPDX-License-Identifier: MIT
-- Futures: handles of cells; see fork_map/cell.lua.

local cells = require "fork_map.cell"
local core = require "fork_map.core"
local loops = require "fork_map.loop"
local queues = require "fork_map.queue"
local timers = require "fork_map.timers"

local M = {}

---What a call will give.  Dropping it cancels the call, unless something waits
---for it: a callback, a derived or combined future, a call whose argument it is,
---a task that awaits it, a nursery.
---@class fork_map.Future
---@field package cell fork_map.Cell
local Future = { __name = "fork_map.Future" }
Future.__index = Future
M.Future = Future

---@return fork_map.Future
function M.new(cell)
  return setmetatable({ cell = cell }, Future)
end

function M.is_future(value)
  return getmetatable(value) == Future
end

local function check(self, name)
  if getmetatable(self) ~= Future then
    error(("fork_map: future:%s: call it with a colon"):format(name), 3)
  end
  return self.cell
end

-- Seconds, or nil; `name` is told.
local function check_seconds(seconds, name)
  if seconds ~= nil and not timers.is_span(seconds) then
    error(("fork_map: future:%s: seconds must be a number of at least 0"):format(name), 3)
  end
  return seconds
end

local function deadline_of(seconds)
  return seconds and core.now() + seconds
end

---What it does: "waiting" for its arguments, "queued", "running", "done",
---"failed" or "cancelled".
---@return "waiting"|"queued"|"running"|"done"|"failed"|"cancelled"
function Future:status()
  local cell = check(self, "status")
  if cell.is_settled then
    return cell.outcome
  elseif cell.state == "waiting" then
    return cell.is_queued and "queued" or "waiting"
  end
  return cell.verbs.status and cell.verbs.status(cell) or "running"
end

local function give(cell)
  cell.seen = true
  if cell.outcome == "done" then
    return true, table.unpack(cell.values, 1, cell.n)
  end
  return false, cell.err
end

---Its outcome, as often as it is asked for: `true, values…` or `false, err`;
---nothing while it has none.  Never waits.
---@return boolean? ok
---@return any ...
function Future:poll()
  local cell = check(self, "poll")
  if cell.is_settled then
    return give(cell)
  end
end

---Wait until it has settled, at most `seconds`.  Does not raise its failure.
---@param seconds? number
---@return boolean settled
function Future:wait(seconds)
  local cell = check(self, "wait")
  return loops.wait(self, cell, deadline_of(check_seconds(seconds, "wait")))
end

local function values_of(ok, ...)
  if not ok then
    error(..., 0)
  end
  return ...
end

---Wait for its values and return them, or raise its `fork_map.Error`.  When the
---wait takes longer than `seconds` an error of kind "timeout" is raised, and the
---call goes on.
---@param seconds? number
---@return any ...
function Future:await(seconds)
  local cell = check(self, "await")
  if not loops.wait(self, cell, deadline_of(check_seconds(seconds, "await"))) then
    error(cells.new_error("timeout", ("the wait took longer than %g s"):format(seconds)), 0)
  end
  return values_of(give(cell))
end

---End it: its process and the descendants of that are asked, and forced after
---`grace` seconds (absent: its own; 0: at once); a task meets an error of kind
---"cancelled" where it waits.  A derived or combined future cancels what it is
---made of.  What was whole before stays.
---@param grace? number
---@return boolean effect false when it has settled or was asked before
function Future:cancel(grace)
  local cell = check(self, "cancel")
  check_seconds(grace, "cancel")
  if not cell.is_settled and cell.loop:is_stale() then
    error(loops.new_stale_error(), 0)
  end
  return cell:cancel(grace)
end

-- Where the error of a callback goes.
local function report_callback(cell, err)
  local scope = cell.callback_scope
  if not (scope and scope:take_failure(err)) then
    cell.loop:report(err, "callback")
  end
end

---Call `callback(future)` once, from the loop, when it has settled, also when it
---has already.  What it raises goes to the nursery or to on_unhandled.
---@param callback fun(future: fork_map.Future)
---@return fork_map.Future self
function Future:on_settle(callback)
  local cell = check(self, "on_settle")
  if type(callback) ~= "function" then
    error(("fork_map: future:on_settle: a function is expected, not a %s")
      :format(type(callback)), 2)
  end
  -- A nursery that has counted it already waits for the callback.
  local scope = cell.is_settled and not cell.scope and cell.callback_scope
  if scope then
    scope:hold()
  end
  cell:add_waiter(self, function()
    local ok, err = loops.call(callback, self)
    if not ok then
      report_callback(cell, err)
    end
    if scope then
      scope:release()
    end
  end)
  return self
end

local DERIVED = { cancels_inputs = true }

local function pack(ok, ...)
  return ok, select("#", ...), { ... }
end

---A future of `fn(values…)`, which is called in this process, from the loop, and
---may not wait.  It fails as this one does, or with what `fn` raises.
---@param fn fun(...): ...
---@return fork_map.Future
function Future:map(fn)
  local source = check(self, "map")
  if type(fn) ~= "function" then
    error(("fork_map: future:map: a function is expected, not a %s"):format(type(fn)), 2)
  end
  local cell = cells.new(source.loop, "map", DERIVED)
  cell:add_inputs({ self }, 1, function()
    if source.outcome ~= "done" then
      cell:follow(source)
      return
    end
    source.seen = true
    local ok, n, values = pack(loops.call(fn, table.unpack(source.values, 1, source.n)))
    if ok then
      cell:succeed(n, values)
    else
      cell:fail(values[1])
    end
  end)
  return M.new(cell)
end

---Let it run to its end though nobody looks at it, as long as its engine lives.
---@return fork_map.Future self
function Future:detach()
  check(self, "detach").is_detached = true
  return self
end

---The id of its process while there is one.
---@return integer?
function Future:pid()
  local cell = check(self, "pid")
  return not cell.is_settled and cell.verbs.pid and cell.verbs.pid(cell) or nil
end

---What its process used, once it has settled.
---@return fork_map.Usage?
function Future:usage()
  local cell = check(self, "usage")
  return cell.details and cell.details.usage
end

---What its process printed, with the option `output = "capture"`, once it has
---settled.
---@return string? stdout
---@return string? stderr
---@return integer? dropped bytes that came before and were let go
function Future:output()
  local details = check(self, "output").details
  if details and details.stdout then
    return details.stdout, details.stderr, details.dropped
  end
end

---A descriptor that is readable when its engine has something to do and from the
---moment that it has settled; nil where engines have none.  For loops that ask
---objects for pollfd(), events() and timeout(), such as cqueues:
---`repeat cqueues.poll(future) until future:wait(0)`.
---@return integer?
function Future:pollfd()
  local cell = check(self, "pollfd")
  if not cell.beacon then
    cell.loop:set_polled()
    cell.beacon = core.beacon(cell.loop.core)
    if cell.beacon and cell.is_settled then
      core.beacon_light(cell.beacon)
    end
  end
  return cell.beacon and core.beacon_fd(cell.beacon)
end

---What to poll the descriptor for.
---@return string
function Future:events()
  check(self, "events")
  return "r"
end

-- Seconds between two looks where there is no descriptor.
local BLIND_PAUSE = 0.01

---Seconds after which its engine has to be stepped anyway.
---@return number?
function Future:timeout()
  local cell = check(self, "timeout")
  if cell.is_settled then
    return 0
  end
  local seconds = cell.loop:get_timeout()
  if not self:pollfd() then
    return math.min(seconds or BLIND_PAUSE, BLIND_PAUSE)
  end
  return seconds
end

-- That wait is over, perhaps because its task is closed by force.
local Ending = {}

function Ending:__close()
  local cell = self.future.cell
  if not cell.is_settled then
    cell:cancel(0)
    loops.wait(self.future, cell, nil, true)
  end
end

---Leaving the block of a `local f <close>` cancels it and waits for its end.
function Future:__close()
  local cell = self.cell
  if not cell.is_settled and not cell.loop:is_stale() then
    cell.seen = true
    cell:cancel()
    if not loops.find_refusal(cell.loop) then
      local _ <close> = setmetatable({ future = self }, Ending)
      loops.wait(self, cell, nil, true)
    end
  end
end

-- Nobody can ask for it any more.
function Future:__gc()
  local cell = self.cell
  if not cell or cell.loop.generation ~= core.generation() then
    return
  end
  cell.is_orphan = true
  if cell.is_settled then
    cell:report_unseen()
  elseif not cell.is_detached then
    cell.loop:push_dropped(cell)
  end
end

-- ----------------------------------------------------------- calls in children

local JOB = {
  cancel = function(cell, grace)
    return core.cancel(cell.core, grace)
  end,
  status = function(cell)
    local status = core.status(cell.core)
    if status ~= "settled" then
      return status
    end
    -- The loop has yet to take it; one that was cancelled may never have run.
    return core.details(cell.core).usage and "running" or "queued"
  end,
  pid = function(cell)
    return cell.core and core.pid(cell.core)
  end,
}

-- From core.outcome(), in a protected call.
local function settle_by(cell, ok, is_value, ...)
  if ok and is_value then
    cell:succeed(select("#", ...), { ... })
  else
    cell:fail(cells.to_error(ok and ... or is_value))
  end
end

-- From the loop: the engine's future of it has settled.
function cells.Cell:take()
  local loop, future = self.loop, self.core
  loop.n_jobs = loop.n_jobs - 1
  local found, details = pcall(core.details, future)
  self.details = found and details or nil
  settle_by(self, pcall(core.outcome, future))
  core.release(future)
  self.core = nil
end

-- Its arguments are there, and its turn has come: give it to the engine.
local function start(cell)
  local loop, args = cell.loop, cell.args
  loop.n_jobs = loop.n_jobs + 1
  local ok, future = pcall(core.spawn, loop.core, cell.prepared, cell, cell.fn,
    table.unpack(args, 1, args.n))
  if not ok then
    loop.n_jobs = loop.n_jobs - 1
    cell:fail(cells.to_error(future))
    return
  end
  cell.core = future
  cell.fn, cell.args = nil, nil
  cell:move("state", "started")
end

-- So many more than can run are given to the engine.  What it has of a call is
-- several kilobytes, which every fork has to look after: further calls wait here.
local AHEAD = 32

local function has_room(loop)
  return loop.n_jobs < core.max_children(loop.core) + AHEAD
end

-- A step that may not wait has no more time to start calls.
local function is_late(loop)
  return loop.start_until and core.now() > loop.start_until
end

---Calls that have waited for their turn.
---@return boolean later there are more, but no more time
function loops.start_queued(loop)
  local queue = loop.queued
  while not queues.is_empty(queue) and has_room(loop) do
    if is_late(loop) then
      return true
    end
    local cell = queues.pop(queue)
    cell.is_queued = nil
    if not cell.is_settled then
      start(cell)
    end
  end
  return false
end

M.JOB = JOB

-- Give it to the engine, or have it wait for its turn there.
function JOB.start(cell)
  local loop = cell.loop
  if queues.is_empty(loop.queued) and has_room(loop) and not is_late(loop) then
    start(cell)
    return
  end
  queues.push(loop.queued, cell)
  cell.is_queued = true
  loop.starts_later = loop.starts_later or has_room(loop)
end

-- -------------------------------------------------------------- all calls

-- All futures among its arguments have settled: put their values in place.
local function resolve(cell)
  local args = cell.args
  for i = 1, args.n do
    if M.is_future(args[i]) then
      args[i] = args[i].cell.values[1]
    end
  end
  cell:let_inputs_go()
  if cell.scope then
    cell.scope:let_start(cell)
  else
    cell.verbs.start(cell)
  end
end

-- The same from the loop, where nothing may wait.
local function resolve_later(cell)
  cell.is_deferred = true
  resolve(cell)
end

-- The futures among the arguments that have not settled, by their places; nil
-- when there are none.  The cell of one that has failed comes second.
local function find_inputs(args)
  local inputs, n_missing
  for i = 1, args.n do
    if M.is_future(args[i]) then
      local input = args[i].cell
      if not input.is_settled then
        inputs = inputs or {}
        inputs[i] = args[i]
        n_missing = (n_missing or 0) + 1
      elseif input.outcome ~= "done" then
        return nil, 0, input
      else
        input.seen = true
      end
    end
  end
  return inputs, n_missing or 0
end

---Begin the call of a new cell, whoever runs it: `verbs.start(cell)` is called once
---those of the arguments that are futures have settled, and the nursery lets it have
---its turn.  It finds the arguments in `cell.args`, and settles the cell at any time.
---Then `cell.is_deferred` tells that it is called by the loop, where it may neither
---wait nor raise; else the caller of this function calls it.
---@param cell fork_map.Cell
---@param scope table? the nursery's
---@param ... any arguments
---@return fork_map.Future
function M.call(cell, scope, ...)
  cell.args = table.pack(...)
  cell.scope, cell.callback_scope = scope, scope
  local f = M.new(cell)
  if scope then
    scope:admit(f)
    if cell.is_settled then -- as all that the nursery had
      return f
    end
  end
  local inputs, n_missing, failed = find_inputs(cell.args)
  if failed then
    cell:follow(failed)
  elseif inputs then
    cell:need_all(inputs, cell.args.n, n_missing, resolve_later)
  else
    resolve(cell)
  end
  return f
end

---Call `fn(...)` in a child of the loop's engine.
---@param scope table? the nursery's
---@return fork_map.Future
function M.spawn(loop, prepared, scope, fn, ...)
  loop:check_open()
  local cell = cells.new(loop, "job", JOB)
  cell.prepared, cell.fn = prepared, fn
  return M.call(cell, scope, ...)
end

return M
