-- SPDX-License-Identifier: MIT
-- What an engine has to do in Lua beside the work of its core: settled futures
-- to tell of, tasks that can go on, timers.  And the one way to wait.
--
-- A loop belongs to one engine.  Whatever waits steps all loops of the Lua
-- state that have something to do, so futures of one engine may be awaited in
-- tasks of another.

local core = require "fork_map.core"
local queues = require "fork_map.queue"
local timers = require "fork_map.timers"

local now = core.now
local is_empty, new_queue, pop, push = queues.is_empty, queues.new, queues.pop, queues.push

local M = {
  ---@type fork_map.Task? the task whose coroutine runs
  current = nil,
  -- A callback of a loop runs.
  is_calling = false,
  -- The outermost scheduler runs: only it resumes tasks.
  is_scheduling = false,
}

-- Seconds of one step, at most.
local LONGEST = 1e9

-- Seconds of one wait: hooks of the host run in between.
local PAUSE = 1

-- Seconds that a step which may not wait goes on starting calls.
local START = 0.001

---@class fork_map.Loop
---@field core fork_map.core.Engine
---@field generation integer of the process that it belongs to
---@field n_jobs integer futures that processes will settle
---@field n_watches integer descriptors that are waited for
---@field live table<fork_map.Cell, true> cells that have not settled
---@field n_live integer of them
---@field adapter fork_map.Adapter? how coroutines of the host's loop are suspended
local Loop = {}
Loop.__index = Loop
M.Loop = Loop

-- Loops of this process, so that whoever waits can step them all.
local loops = setmetatable({}, { __mode = "v" })
local n_loops = 0
local generation = core.generation()

-- What of scopes a coroutine runs in, by coroutine; tasks are their own.
local contexts = setmetatable({}, { __mode = "k" })

-- That of the main coroutine, once it has one: at top level all others are above it.
local main_context

-- In a child nothing goes on that went on in its parent.
local function check_process()
  if core.generation() ~= generation then
    generation = core.generation()
    loops, n_loops = setmetatable({}, { __mode = "v" }), 0
    contexts, main_context = setmetatable({}, { __mode = "k" }), nil
    M.current, M.is_calling, M.is_scheduling = nil, false, false
  end
  return generation
end
M.check_process = check_process

---Whether this is a child of the process whose tasks these are.
function M.is_stale()
  return core.generation() ~= generation
end

---@param engine fork_map.core.Engine
---@return fork_map.Loop
function M.new(engine)
  local self = setmetatable({
    core = engine, generation = check_process(), n_jobs = 0, n_watches = 0, live = {}, n_live = 0,
    queued = new_queue(), starts_later = false,
    due = new_queue(), ready = new_queue(), dropped = new_queue(),
    timers = timers.new(), n_settled = 0,
  }, Loop)
  n_loops = n_loops + 1
  loops[n_loops] = self
  return self
end

---A cell that has not settled.
function Loop:add(cell)
  self.live[cell] = true
  self.n_live = self.n_live + 1
  if self.n_live == 1 and self.adapter then
    self.adapter:drive(self)
  end
end

---It has settled.
function Loop:remove(cell)
  self.live[cell] = nil
  self.n_live = self.n_live - 1
  self.n_settled = self.n_settled + 1
  if self.n_live == 0 and self.adapter then
    self.adapter:rest(self)
  end
end

function Loop:is_stale()
  return self.generation ~= check_process()
end

-- ----------------------------------------------------------------- timers

---Call `fn()` from the loop at the time `at`.
function Loop:at(at, fn)
  local timer = self.timers:add(at, fn)
  self:note()
  return timer
end

---Do not call it any more; it may have been called.
function Loop:stop_timer(timer)
  self.timers:stop(timer)
  self:note()
end

-- ------------------------------------------------------------------- turns

---Something to run in the next turn: `object:run()`.
function Loop:push_due(object)
  push(self.due, object)
  self:note()
end

---A task that can go on.
function Loop:push_ready(task)
  push(self.ready, task)
  self:note()
end

---From a finalizer: nobody can ask for this cell any more.
function Loop:push_dropped(cell)
  push(self.dropped, cell)
  self:note()
end

function Loop:is_busy_in_lua()
  return not (is_empty(self.due) and is_empty(self.ready) and is_empty(self.dropped))
    or self.starts_later or core.has_settled(self.core)
end

-- Tell a host that polls when to come back.
function Loop:note()
  if not self.is_polled or self.in_turn then
    return
  end
  local alarm = self:is_busy_in_lua() or self.timers:next()
  if alarm ~= self.alarm then
    self.alarm = alarm
    core.alarm(self.core, alarm or nil)
  end
end

-- From now on a host polls the engine's descriptor, or asks for its timeout.
function Loop:set_polled()
  self.is_polled = true
  self:note()
end

-- As many as there are now: those that they cause come in the next turn.  What
-- one runs may wait, and so take turns in which some of the others are run.
local function run_queue(queue, method)
  local last = queue.last
  while queue.first <= last do
    local object = pop(queue)
    object[method](object)
  end
end

---Do what there is to do now, tasks only if `runs_tasks`.  Tasks, callbacks and
---timers protect themselves; a hook of the host may raise.
function Loop:turn(runs_tasks)
  self.in_turn = true
  while true do
    local cell = core.next_settled(self.core)
    if not cell then
      break
    end
    cell:take()
  end
  if not is_empty(self.queued) then
    self.starts_later = M.start_queued(self)
  end
  run_queue(self.dropped, "drop")
  if self.timers.n > 0 then
    self.timers:expire(now())
  end
  run_queue(self.due, "run")
  if runs_tasks then
    run_queue(self.ready, "run")
  end
  self.in_turn = false
  self:note()
end

-- Nothing of it can happen by itself any more.
local function is_idle(self, runs_tasks)
  return self.n_jobs + self.n_watches == 0 and is_empty(self.due) and is_empty(self.dropped)
    and not self.starts_later
    and not self.timers:next() and not (runs_tasks and not is_empty(self.ready))
end

-- The loops of this process, without those that were collected.
local function list_loops()
  local n = 0
  for i = 1, n_loops do
    local loop = loops[i]
    if loop then
      n = n + 1
      if n < i then
        loops[n], loops[i] = loop, nil
      end
    end
  end
  n_loops = n
  return n
end

local function next_loop(n, i)
  for k = i + 1, n do
    local loop = loops[k]
    if loop then
      return k, loop
    end
  end
end

-- `for _, loop in each_loop() do`
local function each_loop()
  return next_loop, list_loops(), 0
end

-- Seconds until one of the loops has something to do in Lua, at most `most`;
-- and the loops that are not idle.
local function look_around(most, runs_tasks)
  local busy = {}
  for _, loop in each_loop() do
    if not is_idle(loop, runs_tasks) then
      busy[#busy + 1] = loop
      local at = loop.timers:next()
      if not is_empty(loop.due) or not is_empty(loop.dropped)
        or runs_tasks and not is_empty(loop.ready) then
        most = 0
      elseif at then
        most = math.max(0, math.min(most, at - now()))
      end
    end
  end
  return most, busy
end

M.look_around = look_around

-- Wait for the cores of these loops, and let them do what they have to, which is
-- nothing where tasks alone go on.
local function step_cores(busy, own, seconds)
  if #busy <= 1 then
    local loop = busy[1] or own
    if seconds > 0 or loop.n_jobs + loop.n_watches > 0 then
      core.engine_step(loop.core, seconds, true)
    end
    return
  end
  if seconds > 0 then
    local engines = {}
    for i, loop in ipairs(busy) do
      engines[i] = loop.core
    end
    core.wait_any(engines, seconds)
  end
  for _, loop in ipairs(busy) do
    core.engine_step(loop.core, 0)
  end
end

local function turn_all(runs_tasks)
  for _, loop in each_loop() do
    loop:turn(runs_tasks)
  end
end

M.turn_all = turn_all

-- Holds is_scheduling for a block.  A hook of the host may raise anywhere in it.
local scheduling = setmetatable({}, { __close = function(_, err)
  M.is_scheduling = false
  if err ~= nil then
    M.current, M.is_calling = nil, false
    for _, loop in each_loop() do
      loop.in_turn = false
      loop:note()
    end
  end
end })

local function begin_scheduling(runs_tasks)
  if not runs_tasks then
    return nil
  end
  M.is_scheduling = true
  return scheduling
end

local DEADLOCK = "fork_map: would deadlock: nothing is left that could settle this"

-- Step all loops until the cell has settled, or until `deadline`.
local function drive(cell, deadline, runs_tasks, context, is_shielded)
  local _ <close> = begin_scheduling(runs_tasks)
  local is_last = false
  while true do
    turn_all(runs_tasks)
    if cell.is_settled then
      return true
    end
    local err = not is_shielded and M.find_cancel(context)
    if err then
      error(err, 0)
    elseif is_last then
      return false
    end
    local left = deadline and math.max(0, deadline - now()) or PAUSE
    is_last = left == 0
    local seconds, busy = look_around(math.min(left, PAUSE), runs_tasks)
    if #busy == 0 and not deadline then
      error(DEADLOCK, 0)
    end
    step_cores(busy, cell.loop, seconds)
  end
end

-- ----------------------------------------------------------------- scopes
-- A context is what nurseries look at: a task, or what stands for another
-- coroutine.  Its innermost scope is `context.scope`, linked by `outer`.

---What stands for a coroutine that is no task; see fork_map/attach.lua.
local Context = {}
Context.__index = Context
M.Context = Context

---Begin a wait, as tasks do too; returns its number, for wake().
function Context:begin_wait(is_shielded)
  self.waits = self.waits + 1
  self.is_waiting, self.is_shielded = true, is_shielded
  return self.waits
end

---The context of the running coroutine.
function M.get_context()
  check_process()
  local co, is_main = coroutine.running()
  local task = M.current
  if task and task.co == co then
    return task
  end
  local context = contexts[co]
  if not context then
    context = setmetatable({ waits = 0 }, Context)
    contexts[co] = context
    if is_main then
      main_context = context
    end
  end
  return context
end

local function find_own_cancel(context)
  if context.stop_error then
    return context.stop_error
  end
  local scope, found = context.scope, nil
  while scope do
    found = scope.cancel_error or found
    scope = scope.outer
  end
  return found
end

---The error that ends every wait in this context, or nil.  Another coroutine of a
---task, or one at top level, is inside of what that task or the main one is in.
function M.find_cancel(context)
  local below = M.current or main_context
  return below and below ~= context and find_own_cancel(below) or find_own_cancel(context)
end

-- ---------------------------------------------------------------- waiting

---Why a call on this engine that blocks cannot begin, or nil.
---@param engine fork_map.core.Engine
---@return string?
function M.get_state(engine)
  check_process()
  return M.is_calling and "callback" or core.engine_state(engine)
end

-- Why the running function cannot wait, or nil.
function M.find_refusal(loop)
  if M.get_state(loop.core) == "callback" then
    return "fork_map: cannot wait inside a callback of the engine"
  end
  return nil
end

---Nothing is to wake this task any more.
function M.end_wait(task)
  local timer, waiter = task.timer, task.waiter
  task.timer, task.waiter = nil, nil
  if timer then
    task.cell.loop:stop_timer(timer)
  end
  if waiter and waiter.fn then
    task.awaited:remove_waiter(waiter)
  end
  task.awaited = nil
end

-- In the running task, or in a coroutine of the host's loop.
local function suspend(task, f, cell, deadline, is_shielded)
  local err = not is_shielded and M.find_cancel(task)
  if err then
    if task.pass then -- or one that waits again and again would never be closed
      task:pass()
    end
    error(err, 0)
  end
  local number = task:begin_wait(is_shielded)
  if f then
    task.awaited, task.waiter = cell, cell:add_waiter(f, function()
      task:wake(number, "settled")
    end)
  end
  if deadline then
    task.timer = task.cell.loop:at(deadline, function()
      task:wake(number, "late")
    end)
  end
  local why = task:pause()
  M.end_wait(task)
  if why == "cancelled" then
    error(M.find_cancel(task) or M.new_cancelled_error(), 0)
  elseif why == "closed" then
    error(M.new_closed_error(), 0)
  end
  return cell.is_settled
end

-- The same there: its context stands for a task.
local function suspend_in_host(f, cell, deadline, is_shielded)
  local context = M.get_context()
  context.cell = { loop = cell.loop }
  return suspend(context, f, cell, deadline, is_shielded)
end

-- Whether the running coroutine is that of the task, and may yield.
function M.can_suspend(task)
  return task.co == coroutine.running() and not task.is_closing and coroutine.isyieldable()
end

-- Whether it is a coroutine of the loop that the engine is attached to.
local function is_in_host(loop, deadline)
  return loop.adapter and coroutine.isyieldable() and loop.adapter:is_inside()
    and not (deadline and deadline <= now())
end

local BELOW = "fork_map: would deadlock: only a task could settle this, and none can run here"

---Wait until the cell of the future `f` has settled, or until `deadline`: suspend
---the running task, or a coroutine of the host's loop, or step what there is.
---Without `f` nothing will settle the cell, and the wait is for the time alone.
---A wait that is shielded is not ended by a cancel.
---@return boolean settled
function M.wait(f, cell, deadline, is_shielded)
  if cell.is_settled then
    return true
  end
  local refusal = M.find_refusal(cell.loop)
  if refusal then
    error(refusal, 0)
  elseif cell.loop:is_stale() then
    error(M.new_stale_error(), 0)
  elseif cell.loop.is_closed then
    error(M.new_closed_error(), 0)
  end
  local task = M.current
  if task and M.can_suspend(task) then
    return suspend(task, f, cell, deadline, is_shielded)
  elseif not task and is_in_host(cell.loop, deadline) then
    return suspend_in_host(f, cell, deadline, is_shielded)
  end
  local runs_tasks = not (task or M.is_scheduling
    or core.engine_state(cell.loop.core) == "finalizer")
  if not runs_tasks and f and cell:needs_task() then
    error(BELOW, 0)
  end
  -- No tail call: this frame has the future, which is cancelled when nobody has it.
  local is_settled = drive(cell, deadline, runs_tasks, M.get_context(), is_shielded)
  return is_settled
end

---Raises when nothing can be started any more.
function Loop:check_open()
  if self.is_closed then
    error(M.new_closed_error(), 0)
  elseif self:is_stale() then
    error(M.new_stale_error(), 0)
  elseif core.engine_state(self.core) == "finalizer" then
    error("fork_map: cannot start anything inside a __gc metamethod", 0)
  end
end

---One step of this loop for a host: wait at most `seconds`, do what there is to
---do, and return how many futures have settled.
function Loop:step(seconds)
  local before = self.n_settled
  local runs_tasks = not (M.current or M.is_scheduling)
  if self:is_busy_in_lua() then
    seconds = 0
  elseif seconds > 0 then
    local at = self.timers:next() or math.huge
    seconds = math.max(0, math.min(seconds, at - now(), LONGEST))
  end
  local _ <close> = begin_scheduling(runs_tasks)
  local n, code = core.engine_step(self.core, seconds, self.timers:next() ~= nil)
  if n == 0 and self.n_live + self.n_watches + self.timers.n == 0
    and not self:is_busy_in_lua() then
    return 0
  end
  self.start_until = seconds == 0 and now() + START or nil
  self:turn(runs_tasks)
  self.start_until = nil
  return self.n_settled - before, code
end

function Loop:get_pollfd()
  local fd = core.pollfd(self.core)
  if fd then
    self:set_polled()
  end
  return fd
end

---Seconds until step() has something to do, nil when only descriptors matter.
function Loop:get_timeout()
  if self:is_busy_in_lua() then
    return 0
  end
  local seconds, at = core.timeout(self.core), self.timers:next()
  local left = at and math.max(0, at - now())
  return left and math.min(left, seconds or left) or seconds
end

---The engine was closed: nothing of it goes on.
function Loop:close()
  self.is_closed = true
  local err = M.new_closed_error()
  while true do
    self:turn(false)
    local cell = next(self.live)
    if cell then
      cell:close(err)
    elseif is_empty(self.due) and is_empty(self.dropped) then
      break
    end
  end
  self.timers, self.ready = timers.new(), new_queue()
  if self.adapter then
    self.adapter:close(self)
  end
end

local function finish_call(was, ...)
  M.is_calling = was
  return ...
end

---Call `fn(...)` as a callback: it may neither wait nor yield, and what it raises is
---returned.
---@return boolean ok
---@return any ...
function M.call(fn, ...)
  local was = M.is_calling
  M.is_calling = true
  return finish_call(was, core.call(M.to_error, fn, ...))
end

---Give an error to on_unhandled.
---@param why "callback"|"unseen"
function Loop:report(err, why)
  M.call(core.unhandled, self.core, err, why)
end

return M
