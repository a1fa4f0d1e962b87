-- SPDX-License-Identifier: MIT
-- A worker of a pool in its process: runs the handler for one call after the
-- other, and as many at once as the option `load` allows when they yield.
--
-- Each call runs in the coroutine of a runner, which is a task to everything that
-- waits.  A runner serves one call after the other; another one is made only while
-- all are suspended.  What calls wait for is looked after between two calls; the
-- process sleeps for its next call alone when nothing else goes on.

local core = require "fork_map.core"
local loops = require "fork_map.loop"
local tasks = require "fork_map.task"
local travel = require "fork_map.travel"

local resume_of, traceback, yield = coroutine, debug.traceback, coroutine.yield

local M = {}

-- A call's tag is {its number in the pool, attempt: 16 bits}.
local ATTEMPT_BITS = 16
M.MOST_ATTEMPTS = (1 << ATTEMPT_BITS) - 1

function M.pack_tag(index, attempt)
  return index << ATTEMPT_BITS | attempt
end

---What this process serves, if it is a worker of a pool.
---@class fork_map.Serving
---@field package generation integer of this process
---@field package n_running integer calls that have begun and not ended
local state

local function get_state()
  if state and state.generation == core.generation() then
    return state
  end
end

-- ------------------------------------------------------------------ runners

---@class fork_map.Runner: fork_map.Task
local Runner = setmetatable({}, { __index = tasks.Task })
Runner.__index = Runner

-- The loop of a runner is that of this process's default engine, which is made
-- when one waits for something.
local LAZY = { __index = function(cell, key)
  if key == "loop" then
    local async, engines = require "fork_map.async", require "fork_map.engine"
    local loop = async.get_loop(engines.get_default())
    rawset(cell, "loop", loop)
    return loop
  end
end }

-- The message handler of calls: keeps where the error came from, without the frames
-- that are not the handler's.
local function note_error(err)
  local runner = loops.current
  if runner and runner.number then
    local text = traceback(nil, 2)
    runner.traceback = text:match("^(.*)\n\t%[C%]: in function 'xpcall'") or text
  end
  return err
end

local function finish(runner, ok, ...)
  local serving = runner.serving
  local number = runner.number
  runner.number, runner.scope = nil, nil
  if ok then
    serving.is_alive = core.serve_answer(number, ...)
  else
    serving.is_alive = core.serve_fail(number, runner.traceback, (...))
    runner.traceback = nil
  end
end

local function new_runner(serving)
  local runner = setmetatable({
    serving = serving, waits = 0, cell = setmetatable({}, LAZY), is_runner = true,
  }, Runner)
  local handler = serving.handler
  runner.co = coroutine.create(function(...)
    finish(runner, xpcall(handler, note_error, ...))
    while true do
      finish(runner, xpcall(handler, note_error, yield()))
    end
  end)
  return runner
end

-- Go on with its call, which has these arguments if it begins.
local function resume(runner, ...)
  local serving = runner.serving
  loops.current = runner
  local ok, err = resume_of.resume(runner.co, ...)
  loops.current = nil
  if not ok then
    error(err, 0)
  elseif not runner.number then
    serving.n_running = serving.n_running - 1
    serving.idle[#serving.idle + 1] = runner
  elseif not runner.is_waiting and not runner.is_ready then
    runner.is_ready = true -- it has yielded by itself
    runner.cell.loop:push_ready(runner)
  end
end

---From the loop.
function Runner:run()
  self.is_ready = false
  resume(self)
end

-- -------------------------------------------------------------------- calls

-- core.serve_take() has given this.
local function begin(self, number, tag, ...)
  if not number then
    return number
  end
  local n_idle = #self.idle
  local runner = self.idle[n_idle]
  if runner then
    self.idle[n_idle] = nil
  else
    runner = new_runner(self)
  end
  runner.number, runner.tag = number, tag
  self.n_begun, self.n_running = self.n_begun + 1, self.n_running + 1
  if self.seed then
    core.random_seed(self.seed, tag >> ATTEMPT_BITS)
  end
  resume(runner, ...)
  return true
end

-- Tell once that no more calls are begun here.
local function check_retirement(self)
  if self.n_begun >= self.max_tasks or self.max_rss and core.rss() > self.max_rss then
    self.retires = true
  end
  if self.retires and not self.has_told then
    self.has_told = true
    core.serve_retire()
  end
end

-- Begin what may begin.  Returns whether more may.
local function take_calls(self)
  while self.n_running < self.load and not self.retires and self.is_alive do
    local taken = begin(self, core.serve_take())
    if taken == nil then
      self.leaves = true
      return false
    elseif not taken then
      return true
    end
    check_retirement(self)
  end
  return false
end

-- Let go on what goes on beside calls, or wait for that, and for calls if more may
-- come.
local function turn(self, takes_more)
  loops.is_scheduling = true
  loops.turn_all(true)
  loops.is_scheduling = false
  if self.n_running == 0 and self.leaves then
    return
  end
  local seconds, busy = loops.look_around(1, true)
  local cores = {}
  for i, loop in ipairs(busy) do
    cores[i] = loop.core
  end
  if seconds > 0 then
    if takes_more and self.n_running < self.load then
      self.is_alive = core.serve_sleep(cores, seconds)
    else
      core.wait_any(cores, seconds)
    end
  end
  for _, loop in ipairs(busy) do
    core.engine_step(loop.core, 0)
  end
end

-- Nothing goes on here but the wait for calls.
local function is_quiet(self)
  if self.n_running > 0 then
    return false
  end
  local _, busy = loops.look_around(0, true)
  return #busy == 0
end

local function serve_all(self)
  while self.is_alive do
    local takes_more = take_calls(self)
    check_retirement(self)
    if self.n_running == 0 and (self.leaves or self.retires) then
      return
    elseif not is_quiet(self) then
      turn(self, takes_more)
    elseif takes_more then
      self.is_alive = core.serve_sleep()
    end
  end
end

-- The handler of a pool without one: the call brings its function along.
local function new_executor()
  local known = {}
  return function(kind, text, ...)
    local fn = known[text]
    if not fn then
      local problem
      fn, problem = travel.unpack(kind, text)
      if not fn then
        error(problem, 0)
      end
      known[text] = fn
    end
    return fn(...)
  end
end

-- A function of the pool: itself, or what of it has travelled.
local function find_function(fn)
  if type(fn) == "string" then
    fn = { "name", fn }
  end
  if type(fn) == "table" then
    local found, problem = travel.unpack(fn[1], fn[2])
    return found or error(problem, 0)
  end
  return fn
end

-- What a template was sent before comes first, for each call.
local function bind(handler, n, sent)
  if n == 0 then
    return handler
  end
  return function(...)
    local args = table.move({ ... }, 1, select("#", ...), n + 1, table.move(sent, 1, n, 1, {}))
    return handler(table.unpack(args, 1, n + select("#", ...)))
  end
end

---The job of a worker: its last argument is { handler =, init =, exit =, load =,
---max_tasks =, max_rss =, seed = }, those before are what a template was sent.
function M.serve(...)
  loops.check_process()
  local n = select("#", ...)
  local spec = select(n, ...)
  local handler = find_function(spec.handler) or new_executor()
  local init, exit = find_function(spec.init), find_function(spec.exit)
  local self = {
    generation = core.generation(), handler = bind(handler, n - 1, { ... }), load = spec.load,
    max_tasks = spec.max_tasks or math.huge, max_rss = spec.max_rss, seed = spec.seed,
    idle = {}, n_running = 0, n_begun = 0, retires = false, leaves = false, is_alive = true,
  }
  state = self
  if init then
    init()
  end
  if core.serve_begin() then
    serve_all(self)
  end
  if exit then
    exit()
  end
end

-- ------------------------------------------------------ what a handler may ask

-- The runner of the call that the running function is in, also below a coroutine of
-- its own.
local function get_runner()
  local runner = get_state() and loops.current
  return runner and runner.is_runner and runner or nil
end

---Which call is being worked on: its number and attempt, or nil.
---@return integer? index
---@return integer? attempt
function M.current()
  local runner = get_runner()
  if runner and runner.number then
    return runner.tag >> ATTEMPT_BITS, runner.tag & M.MOST_ATTEMPTS
  end
end

---Whether this is a worker.
---@return boolean
function M.is_here()
  return get_state() ~= nil
end

---Send an event of the call that is being worked on, or of none.
function M.emit(value)
  local runner = get_runner()
  core.serve_emit(runner and runner.number or 0, value)
end

---This worker begins no more calls.
---@return boolean here
function M.retire()
  local self = get_state()
  if self then
    self.retires = true
  end
  return self ~= nil
end

return M
