-- SPDX-License-Identifier: MIT
-- What goes on beside the caller: the verbs that give futures, tasks and
-- nurseries, and the engine's face to loops of hosts.

local attaching = require "fork_map.attach"
local combine = require "fork_map.combine"
local core = require "fork_map.core"
local executors = require "fork_map.executor"
local futures = require "fork_map.future"
local loops = require "fork_map.loop"
local nurseries = require "fork_map.nursery"
local pools = require "fork_map.pool"
local options = require "fork_map.options"
local promises = require "fork_map.promise"
local tasks = require "fork_map.task"
local timers = require "fork_map.timers"

local M = {}

---The loop of an engine of ours.
---@param engine fork_map.Engine
---@return fork_map.Loop
function M.get_loop(engine)
  local loop = engine.loop
  if not loop then
    loop = loops.new(engine.core)
    engine.loop = loop
  end
  return loop
end

-- How to find what a verb is done with; see install().
local target_of

local FINALIZER = "fork_map: cannot start anything inside a __gc metamethod"

-- Raised at the caller of the verb that calls this.
local function check_start(name, engine, fn)
  loops.check_process()
  if type(fn) ~= "function" then
    error(("fork_map.%s: a function is expected, not a %s"):format(name, type(fn)), 3)
  elseif core.engine_state(engine.core) == "finalizer" then
    error(FINALIZER, 3)
  end
end

local function check_seconds(name, seconds)
  if not timers.is_span(seconds) then
    error(("fork_map.%s: seconds must be a number of at least 0"):format(name), 3)
  end
end

---Verbs that views and engines have as methods and the module as functions.
---@class fork_map.AsyncVerbs
local Verbs = {}

---Start `fn(...)` in a child, or queue it while as many run as `max_children`
---allows, and return the future of its values.  An argument that is a future is
---replaced by its first value: the call begins when all of them have settled, and
---fails as the first of them does that fails.
---@param fn function
---@param ... any
---@return fork_map.Future
function Verbs:spawn(fn, ...)
  local target = target_of(self)
  local loop = M.get_loop(target.engine)
  if not target.bound then
    check_start("spawn", target.engine, fn)
    return futures.spawn(loop, target.prepared, nil, fn, ...)
  end
  local misuse = executors.find_misuse(fn)
  if misuse then
    error("fork_map.spawn: " .. misuse, 2)
  end
  return executors.spawn(target.bound, loop, nil, nil, fn, ...)
end

---A future that somebody else settles: `resolve(values…)` or `reject(err)`, whichever is
---called first, which returns true.  When it is cancelled `on_cancel(seconds)` is called,
---once to ask and with 0 when it is forced; then, or without `on_cancel` at once, it
---fails with kind "cancelled".
---@param on_cancel? fun(seconds: number)
---@return fork_map.Future
---@return fun(...): boolean resolve
---@return fun(err: any): boolean reject
function Verbs:future(on_cancel)
  local target = target_of(self)
  if on_cancel ~= nil then
    check_start("future", target.engine, on_cancel)
  end
  return promises.new(M.get_loop(target.engine), on_cancel)
end

---Start `fn(...)` as a task: a coroutine of this process, which the loop runs while
---somebody waits, or steps the engine.  It goes on though nobody has its future.
---@param fn function
---@param ... any
---@return fork_map.Future
function Verbs:task(fn, ...)
  local target = target_of(self)
  check_start("task", target.engine, fn)
  return (tasks.start(M.get_loop(target.engine), nil, fn, ...))
end

---Run `main(...)` as a task until it and all tasks that it has started have ended,
---and return its values, or raise what it raised.
---@param main function
---@param ... any
---@return any ...
function Verbs:run(main, ...)
  local target = target_of(self)
  check_start("run", target.engine, main)
  if loops.current and not loops.current.is_runner then
    error("fork_map.run: a task is running already", 2)
  end
  return tasks.run(M.get_loop(target.engine), main, ...)
end

---Let `seconds` pass: a task is suspended, elsewhere the engine is stepped.
---@param seconds number
function Verbs:sleep(seconds)
  check_seconds("sleep", seconds)
  tasks.sleep(M.get_loop(target_of(self).engine), seconds)
end

---Let other tasks run.
function Verbs:yield()
  tasks.yield(M.get_loop(target_of(self).engine))
end

-- Drop what is wrong, or raise it at the caller's caller.
local function finish(made, text)
  if not made then
    error(text, 2)
  end
  return made
end

---A future that settles as `future` does; after `seconds` it fails with kind
---"timeout" and cancels it.
---@param seconds number
---@param future fork_map.Future
---@return fork_map.Future
function Verbs:within(seconds, future)
  check_seconds("within", seconds)
  if not futures.is_future(future) then
    error(("fork_map.within: a future is expected, not a %s"):format(type(future)), 2)
  end
  return combine.within(M.get_loop(target_of(self).engine), seconds, future)
end

---A future of a table with the first value of each future, under the same keys.
---@param from table<any, fork_map.Future>
---@return fork_map.Future
function Verbs:all(from)
  return finish(combine.all(M.get_loop(target_of(self).engine), from))
end

---A future of the values of the first that succeeds; when all have failed, it fails
---as the first did, with the failures of the rest in `others`.
---@param from table<any, fork_map.Future>
---@return fork_map.Future
function Verbs:any(from)
  return finish(combine.any(M.get_loop(target_of(self).engine), from))
end

---A future that settles as the first of them does.
---@param from table<any, fork_map.Future>
---@return fork_map.Future
function Verbs:race(from)
  return finish(combine.race(M.get_loop(target_of(self).engine), from))
end

---`for future in fork_map.as_completed(futures) do`: each as it settles.
---@param from table<any, fork_map.Future>
---@return fun(): fork_map.Future?
function Verbs:as_completed(from)
  local completed, text = combine.as_completed(M.get_loop(target_of(self).engine), from)
  if not completed then
    error(text, 2)
  end
  return completed, nil, nil, completed
end

---A pool of workers that call `handler(...)` for each of its calls; without a handler
---each call brings its function along.
---@param handler? function|string
---@param opts? fork_map.PoolOptions
---@return fork_map.Pool
---@overload fun(opts: fork_map.PoolOptions): fork_map.Pool
function Verbs:pool(handler, opts)
  if type(handler) == "table" and opts == nil then
    handler, opts = nil, handler
  end
  local target = target_of(self)
  loops.check_process()
  return finish(pools.new(M.get_loop(target.engine), target.opts, handler, opts or {}))
end

-- Returns what is wrong, or nil with what Scope needs.
local function prepare_nursery(target, opts)
  local checked, text = options.check_nursery(opts or {})
  if not checked then
    return text
  end
  local merged = options.merge(target.opts, checked)
  local prepared
  prepared, text = options.prepare(merged)
  if prepared and merged.executor then
    checked.bound, text = executors.bind(merged.executor, merged)
  end
  return text, prepared, checked
end

---Run `body(nursery)`: nothing that is started in the nursery outlives this call.
---It returns what `body` returns, once all has ended; the first failure cancels the
---rest, and is raised with the others in `others`.  Without `body` the nursery is
---for a block: `local n <close> = fork_map.nursery()`.
---@param body? fun(nursery: fork_map.Nursery): ...
---@param opts? fork_map.NurseryOptions
---@return any ...
---@overload fun(opts?: fork_map.NurseryOptions): fork_map.Nursery
function Verbs:nursery(body, opts)
  local target = target_of(self)
  if body ~= nil and type(body) ~= "function" then
    if opts ~= nil or type(body) ~= "table" then
      error(("fork_map.nursery: a function is expected, not a %s"):format(type(body)), 2)
    end
    body, opts = nil, body
  end
  local text, prepared, checked = prepare_nursery(target, opts)
  if text then
    error(text, 2)
  end
  local loop = M.get_loop(target.engine)
  local refusal = loops.find_refusal(loop)
  if refusal then
    error(refusal, 2)
  elseif body then
    return nurseries.run(loop, prepared, checked, body)
  end
  return nurseries.open(loop, prepared, checked)
end

-- ------------------------------------------------------------ the engine's face

local Methods = {}

---Do what there is to do, at most waiting `seconds` for something, and return how
---many futures have settled.  For hosts with a loop of their own.
---@param seconds? number 0 when absent
---@return integer settled
function Methods:step(seconds)
  if seconds ~= nil then
    check_seconds("engine:step", seconds)
  end
  local loop = self.loop or M.get_loop(self)
  if loop:is_stale() then
    error(loops.new_stale_error(), 0)
  elseif loops.is_calling or core.in_callback(self.core) then
    error("fork_map: cannot step inside a callback of the engine", 2)
  end
  return (loop:step(seconds or 0))
end

---A descriptor that is readable exactly when step() has something to do; nil where
---there is none.  It belongs to the engine.
---@return integer?
function Methods:pollfd()
  return M.get_loop(self):get_pollfd()
end

---Seconds after which step() is to be called in any case; 0 when there is something
---to do; nil when the descriptor tells all.
---@return number?
function Methods:timeout()
  return M.get_loop(self):get_timeout()
end

---From now on coroutines of the host's loop that wait for a future of this engine are
---suspended.  "luv", "cqueues" and "copas" also have the engine stepped while it has
---something to do; with an adapter that is up to the host.
---@param adapter "luv"|"cqueues"|"copas"|{ wait: fun(fd: integer, seconds: number?) }
function Methods:attach(adapter)
  local text = attaching.attach(M.get_loop(self), adapter)
  if text then
    error(text, 2)
  end
end

-- Whether a call may suspend its caller, which is a task.
function M.in_task()
  local task = loops.current
  return task and task.co == coroutine.running() and coroutine.isyieldable()
end

---The values of `fn(...)` of a child, for a caller that is a task.
function M.call(engine, prepared, fn, ...)
  local f <close> = futures.spawn(M.get_loop(engine), prepared, nil, fn, ...)
  return f:await()
end

---The same of an executor.
function M.call_bound(engine, bound, fn, ...)
  local f <close> = executors.spawn(bound, M.get_loop(engine), nil, nil, fn, ...)
  return f:await()
end

---Add the verbs to `verbs`, and what only engines have to `Engine`; `find(self)` tells
---what a verb is done with: { engine =, opts =, prepared = }.
function M.install(verbs, Engine, find)
  target_of = find
  for name, verb in pairs(Verbs) do
    verbs[name] = verb
  end
  for name, method in pairs(Methods) do
    Engine[name] = method
  end
end

return M
