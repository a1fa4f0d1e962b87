-- SPDX-License-Identifier: MIT
-- Executors: whatever has a method `spawn(self, fn, ...)` that gives a future.
--
-- Those of this library also heed the options of calls, and take part in nurseries as
-- calls of the engine do.  That is in the metatable of theirs:
--
--   __prepare(executor, opts)   checks options of calls, and of nothing else, over its
--                               own defaults, which false lifts; returns what __spawn
--                               takes as `call`, or nil and what is wrong; what bind()
--                               gave makes that executor stand for another
--   __spawn(executor, call, scope, index, fn, ...)
--                               as spawn(): begins a cell with futures.call(cell, scope,
--                               ...); `index` is that of an item, or nil
--   __ahead                     calls that a map gives it for each worker [2]
--   __get_loop(executor)        the loop that its futures settle in, or nil
--   __is_here                   functions may capture what they like: its calls run in
--                               copies of this process, or in it
--
-- An executor that has no __prepare is somebody else's: its futures are followed.

local cells = require "fork_map.cell"
local futures = require "fork_map.future"
local inline = require "fork_map.inline"
local loops = require "fork_map.loop"
local options = require "fork_map.options"
local tasks = require "fork_map.task"
local travel = require "fork_map.travel"

local M = {}

---@class fork_map.Executor
---@field workers? integer how many calls it runs at once
---@field spawn fun(self: fork_map.Executor, fn: function|string, ...): fork_map.Future

---The loop of the default engine; the engine's file says how to get it.
---@type fun(): fork_map.Loop
M.get_default_loop = nil

---What cannot be called by an executor.
---@return string? text what is wrong
function M.find_misuse(fn)
  if type(fn) ~= "function" and type(fn) ~= "string" then
    return ("a function is expected, not a %s"):format(type(fn))
  elseif type(fn) == "string" then
    local kind, text = travel.pack(fn)
    return not kind and text or nil
  end
end

-- ------------------------------------------------------- executors of others

-- What the other has given, or why it has not.
local function check_given(ok, f)
  if ok and futures.is_future(f) then
    return f
  elseif ok then
    return nil, cells.new_error("error", ("spawn() of the executor gave a %s, not a future")
      :format(type(f)))
  end
  return nil, cells.to_error(f)
end

-- While code of others runs, which may suspend its caller, and be left by it.
local Asking = {}

function Asking:__close()
  if not self.has_ended then
    self.cell:fail(loops.new_cancelled_error())
  end
end

local function follow(cell, inner)
  cell.details = inner.details
  cell:follow(inner)
end

local FOREIGN = {
  start = function(cell)
    local executor, fn, args = cell.executor, cell.fn, cell.args
    cell:move("state", "started")
    local asking <close> = setmetatable({ cell = cell }, Asking)
    local invoke = cell.is_deferred and loops.call or pcall
    local f, err = check_given(invoke(executor.spawn, executor, fn,
      table.unpack(args, 1, args.n)))
    asking.has_ended = true
    if not f then
      cell:fail(err)
      return
    end
    cell.inner = f
    local is_forced = cell.is_settled or cell.stop == "forced"
    if is_forced or cell.stop ~= "none" then -- in the meantime
      f.cell:cancel(is_forced and 0 or cell.grace)
    end
    if not cell.is_settled then
      cell:add_inputs({ f }, 1, follow)
    end
  end,
  cancel = function(cell, grace)
    cell.grace = grace
    return cell.inner == nil or cell.inner.cell:cancel(grace)
  end,
  close = function(cell)
    if cell.inner then
      cell.inner.cell:cancel(0)
    end
  end,
  status = function(cell)
    local inner = cell.inner
    return inner and not inner.cell.is_settled and inner:status() or "running"
  end,
  pid = function(cell)
    return cell.inner and cell.inner:pid()
  end,
}

local function spawn_foreign(executor, loop, scope, fn, ...)
  loop:check_open()
  local cell = cells.new(loop, "foreign", FOREIGN)
  cell.executor, cell.fn = executor, fn
  return futures.call(cell, scope, ...)
end

-- ------------------------------------------------------------------ inline

---Calls in this process, here and now.  Options of calls are heeded that need none of
---their own.
---@class fork_map.InlineExecutor: fork_map.Executor
local Inline = {
  __name = "fork_map.executor.inline", __ahead = 1, __is_here = true, workers = 1,
}
Inline.__index = Inline

local function find_function(fn)
  if type(fn) == "function" then
    return fn
  end
  local found, text = travel.unpack("name", fn)
  return found or function()
    error(text, 0)
  end
end

local function settle_by(cell, values)
  if values[1] then
    cell:succeed(values.n - 1, table.move(values, 2, values.n, 1, {}))
  else
    cell:fail(values[2])
  end
end

-- Run the call of a cell, in the coroutine that this is.
local function run_inline(cell)
  local fn, args, loop = find_function(cell.fn), cell.args, cell.loop
  local running <close> = setmetatable({ cell = cell }, Asking)
  local task = loops.current
  local sleep = task and loops.can_suspend(task) and function(seconds)
    tasks.sleep(loop, seconds)
  end
  local values = inline.run_call(cell.opts, cell.index, sleep, fn, args)
  running.has_ended = true
  settle_by(cell, values)
end

local INLINE = {
  start = function(cell)
    if not cell.is_deferred then
      cell:move("state", "started")
      run_inline(cell)
      return
    end
    -- Its caller has gone on, and the loop may not wait: so a task does it.
    local f = tasks.start(cell.loop, nil, run_inline, cell)
    cell.inner = f
    cell:move("state", "started")
    cell:add_inputs({ f }, 1, follow)
  end,
  cancel = function(cell, grace)
    return cell.inner ~= nil and cell.inner.cell:cancel(grace)
  end,
}

function Inline:__prepare(opts) -- luacheck: no self
  local name = options.find_process_option(opts)
  if name then
    return nil, ('fork_map: option "%s" needs a process, and executor.inline makes none')
      :format(name)
  end
  return opts
end

function Inline:__spawn(call, scope, index, fn, ...) -- luacheck: no self
  local loop = scope and scope.loop or M.get_default_loop()
  loop:check_open()
  local cell = cells.new(loop, "inline", INLINE)
  cell.opts, cell.index, cell.fn = call, index, fn
  return futures.call(cell, scope, ...)
end

local PLAIN = {}

---Call `fn(...)` here and now, and give the future of its values, which has settled
---unless an argument is a future that has not.
---@param fn function|string
---@param ... any
---@return fork_map.Future
function Inline:spawn(fn, ...)
  local misuse = M.find_misuse(fn)
  if misuse then
    error("fork_map: executor:spawn: " .. misuse, 2)
  end
  return self:__spawn(PLAIN, nil, nil, fn, ...)
end

M.inline = setmetatable({}, Inline)

-- ------------------------------------------------------------------- binding

local function field(executor, name)
  local meta = debug.getmetatable(executor)
  return type(meta) == "table" and rawget(meta, name) or nil
end

---@class fork_map.Bound an executor with the options that its calls have
---@field executor fork_map.Executor
---@field package call any? of one of this library
---@field package verb function? its __spawn
local Bound = {}
Bound.__index = Bound

---@param executor fork_map.Executor
---@param opts table checked, merged with those of who asks for it
---@return fork_map.Bound?
---@return string? text what is wrong
function M.bind(executor, opts)
  local prepare = field(executor, "__prepare")
  if prepare then
    local call, text = prepare(executor, options.of_calls(opts))
    if not call then
      return nil, text
    end
    if getmetatable(call) == Bound then -- it stands for another one
      return call
    end
    return setmetatable({
      executor = executor, call = call, verb = field(executor, "__spawn"),
    }, Bound)
  end
  local name = options.find_call_option(opts)
  if name then
    local text = 'fork_map: option "%s" cannot be used with executor: this one takes no options'
    return nil, text:format(name)
  end
  return setmetatable({ executor = executor }, Bound)
end

---Have it call `fn(...)`.
---@param bound fork_map.Bound
---@param loop fork_map.Loop where the call belongs if the executor has none
---@param scope table? the nursery's
---@param index integer? of an item
---@return fork_map.Future
function M.spawn(bound, loop, scope, index, fn, ...)
  if bound.verb then
    return bound.verb(bound.executor, bound.call, scope, index, fn, ...)
  end
  return spawn_foreign(bound.executor, loop, scope, fn, ...)
end

---The loop that its futures settle in, if it has one.
---@param bound fork_map.Bound
---@return fork_map.Loop?
function M.get_loop(bound)
  local get = field(bound.executor, "__get_loop")
  return get and get(bound.executor)
end

---Whether its calls run where functions have what they captured.
---@param bound fork_map.Bound
---@return boolean
function M.is_here(bound)
  return field(bound.executor, "__is_here") == true
end

---How many calls a map is to give it for each worker.
---@param bound fork_map.Bound
---@return integer
function M.get_ahead(bound)
  return field(bound.executor, "__ahead") or 2
end

-- Objects may raise for fields that they do not have.
local function get_workers(executor)
  return executor.workers
end

---How many calls it runs at once, if it tells.
---@param executor fork_map.Executor
---@return integer?
function M.get_workers(executor)
  local ok, n = pcall(get_workers, executor)
  return ok and math.type(n) == "integer" and n >= 1 and n or nil
end

return M
