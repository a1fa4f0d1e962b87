-- SPDX-License-Identifier: MIT
-- Engines and views: what a call is made on.

local async = require "fork_map.async"
local core = require "fork_map.core"
local executors = require "fork_map.executor"
local futures = require "fork_map.future"
local loops = require "fork_map.loop"
local map_verbs = require "fork_map.map"
local options = require "fork_map.options"
local reduce_verb = require "fork_map.reduce"
local planning = require "fork_map.plan"
local stream = require "fork_map.stream"
local travel = require "fork_map.travel"

local M = {}

local engine_state, new_future = core.engine_state, core.future
local start, wait, result = core.start, core.wait, core.result

---An owner of children, with defaults for its calls.  `engine(fn, ...)` runs
---`fn(...)` in a child.
---@class fork_map.Engine
---@field package core fork_map.core.Engine
---@field package defaults table
---@field package prepared fork_map.core.Options
---@overload fun(fn: function, ...): ...
local Engine = { __name = "fork_map.Engine" }
Engine.__index = Engine
M.Engine = Engine

---Options for calls on an engine.  `view(fn, ...)` runs `fn(...)` in a child.
---@class fork_map.View
---@field package engine fork_map.Engine? nil: the default engine of the time of the call
---@field package opts table
---@field package prepared fork_map.core.Options
---@field package bound fork_map.Bound? who runs its calls, if that is not the engine
---@overload fun(fn: function, ...): ...
local View = { __name = "fork_map.View" }
View.__index = View

-- Why a blocking call cannot begin, by core.engine_state().
local REFUSALS = {
  callback = "fork_map: cannot wait inside a callback of the engine",
  finalizer = "fork_map: cannot start a child inside a __gc metamethod",
}

-- Run `fn(...)` in a child and wait for it.  The loop is in Lua so that hooks,
-- such as the one that lua.c sets for Ctrl-C, run between two steps; when one
-- raises, closing the future ends the child first.  The child in turn relies
-- on the future being the newest variable that is to be closed (src/lua/leave.h).
local function run(engine, prepared, fn, ...)
  local future <close> = new_future(engine.core, prepared, true)
  local is_settled = start(future, fn, ...)
  while not is_settled do
    is_settled = wait(future)
  end
  local loop = engine.loop
  if loop then
    loop:note() -- of what has settled meanwhile
  end
  return result(future)
end

-- What is wrong with a call, or nil.
local function find_misuse(engine, fn)
  if type(fn) ~= "function" then
    return ("fork_map: a function is expected, not a %s"):format(type(fn))
  end
  return REFUSALS[loops.get_state(engine.core)]
end

-- What calling an engine or a view does; a tail call of theirs, so that misuse is
-- raised at the caller's line.
local function call(engine, prepared, fn, ...)
  local misuse = find_misuse(engine, fn)
  if misuse then
    error(misuse, 2)
  elseif loops.current and async.in_task() then
    return async.call(engine, prepared, fn, ...)
  end
  return run(engine, prepared, fn, ...)
end

-- The same with an executor.
local function call_bound(engine, bound, fn, ...)
  local misuse = executors.find_misuse(fn)
  misuse = misuse and "fork_map: " .. misuse or REFUSALS[loops.get_state(engine.core)]
  if misuse then
    error(misuse, 2)
  end
  return async.call_bound(engine, bound, fn, ...)
end

-- Options that configure() gave to the default engine: the one that replaces
-- it in a child has them too.
local default_opts = {}
local default

local function new_engine(engine_opts, defaults, prepared)
  return setmetatable({
    core = core.engine_new(engine_opts),
    defaults = defaults,
    prepared = prepared,
  }, Engine)
end

local plain = assert(options.prepare {})

---The default engine: one per Lua state and process.
---@return fork_map.Engine
local function get_default()
  if not default or engine_state(default.core) == "stale" then
    default = new_engine(default_opts, {}, plain)
  end
  return default
end
M.get_default = get_default

---Run `fn(...)` in a child and return its values.
---
---Raises a `fork_map.Error` when there are none, whatever the reason.
---@param fn function
---@param ... any arguments
---@return any ... what `fn` returned
function Engine:__call(fn, ...)
  return call(self, self.prepared, fn, ...)
end

---Change options of the engine: those of an engine only, not the defaults of
---its calls.
---@param opts fork_map.EngineOptions
function Engine:configure(opts)
  local checked, text = options.check_engine(opts)
  if not checked then
    error(text, 2)
  end
  core.engine_configure(self.core, checked)
  if self == default then
    default_opts = options.merge(default_opts, checked)
  end
end

---Cancel what runs, wait for its end, and give back everything that the engine
---holds.  Later calls fail with kind "closed".  May be called again.
function Engine:close()
  if loops.get_state(self.core) == "callback" then
    error(REFUSALS.callback, 2)
  end
  local loop = async.get_loop(self)
  local is_open = not (loop.is_closed or loop:is_stale())
  if is_open and loop.adapter then
    loop.adapter:leave(loop)
  end
  core.engine_close(self.core)
  if is_open then
    loop:close()
  end
end

Engine.__close = Engine.close

local function new_view(engine, opts)
  local prepared, text = options.prepare(opts)
  if not prepared then
    return nil, text
  end
  local bound
  if opts.executor then
    bound, text = executors.bind(opts.executor, opts)
    if not bound then
      return nil, text
    end
  end
  return setmetatable({ engine = engine, opts = opts, prepared = prepared, bound = bound }, View)
end

-- A view of `engine` with `opts` over `base`, or nil and what is wrong.
local function derive(engine, base, opts)
  local checked, text = options.check_call(opts)
  if not checked then
    return nil, text
  end
  return new_view(engine, options.merge(base, checked))
end

---A view of this engine with further defaults.
---@param opts fork_map.Options
---@return fork_map.View
function Engine:with(opts)
  local view, text = derive(self, self.defaults, opts)
  if not view then
    error(text, 2)
  end
  return view
end

---A view with further defaults over those of this one.
---@param more fork_map.Options
---@return fork_map.View
function View:with(more)
  local view, text = derive(self.engine, self.opts, more)
  if not view then
    error(text, 2)
  end
  return view
end

---Run `fn(...)` in a child with the options of this view.
---@param fn function
---@param ... any arguments
---@return any ... what `fn` returned
function View:__call(fn, ...)
  local engine = self.engine or get_default()
  if self.bound then
    return call_bound(engine, self.bound, fn, ...)
  end
  return call(engine, self.prepared, fn, ...)
end

-- ------------------------------------------------------ engines as executors

-- In the child: the function of that name.
local function call_named(name, ...)
  local fn, text = travel.unpack("name", name)
  if not fn then
    error(text, 0)
  end
  return fn(...)
end

-- With the random numbers of an item.
local function with_seed(fn, seed, index)
  return function(...)
    core.random_seed(seed, index)
    return fn(...)
  end
end

local function prepare_call(opts)
  local prepared, text = options.prepare(opts)
  return prepared and { prepared = prepared, seed = opts.seed }, text
end

local function spawn_call(engine, call_opts, scope, index, fn, ...)
  local loop, prepared = async.get_loop(engine), call_opts.prepared
  if type(fn) == "string" then
    if not (index and call_opts.seed) then
      return futures.spawn(loop, prepared, scope, call_named, fn, ...)
    end
    local name = fn
    fn = function(...)
      return call_named(name, ...)
    end
  end
  if index and call_opts.seed then
    fn = with_seed(fn, call_opts.seed, index)
  end
  return futures.spawn(loop, prepared, scope, fn, ...)
end

-- Each call has a process, and those of a map are no more than its workers.
Engine.__ahead, View.__ahead = 1, 1
Engine.__is_here, View.__is_here = true, true
Engine.__get_loop = async.get_loop
Engine.__spawn = spawn_call

function Engine:__prepare(opts)
  return prepare_call(options.merge(self.defaults, opts))
end

-- A view is what it is a view of, with its options.
function View:__prepare(opts)
  local merged = options.merge(self.opts, opts)
  if self.bound then
    return executors.bind(self.opts.executor, merged)
  end
  return prepare_call(merged)
end

function View:__spawn(call_opts, scope, index, fn, ...)
  return spawn_call(self.engine or get_default(), call_opts, scope, index, fn, ...)
end

function View:__get_loop()
  return async.get_loop(self.engine or get_default())
end

function executors.get_default_loop()
  return async.get_loop(get_default())
end

-- What a verb over many items is done with: an engine and defaults.
local function target_of(self)
  if getmetatable(self) == View then
    return {
      engine = self.engine or get_default(), opts = self.opts, prepared = self.prepared,
      bound = self.bound,
    }
  end
  return { engine = self, opts = self.defaults, prepared = self.prepared }
end

-- Drop the text of what is wrong, or raise it at the caller's caller.
local function finish(text, ...)
  if text then
    error(text, 2)
  end
  return ...
end

---Verbs over many items, which views and engines have as methods and the module
---as functions; those of fork_map/async.lua come to them.
---@class fork_map.Verbs: fork_map.AsyncVerbs
local Verbs = {}
M.verbs = Verbs

---Call `fn(item, index)` for every item of `list`, in children, and return the
---first value of each, in the order of the list.
---
---Raises the `fork_map.Error` of the first item that fails, with the results so
---far in `partial`; with `on_error = "collect"` it returns all that ended well,
---and the errors.
---@generic T, R
---@param list T[]|integer
---@param fn fun(item: T, index: integer): R
---@param opts? fork_map.MapOptions
---@return R[] results in the order of the list; `results.n` is their number
---@return table<integer, fork_map.Error>? errors nil if none failed
function Verbs:map(list, fn, opts)
  return finish(map_verbs.map(target_of(self), list, fn, opts))
end

---As map(), for what `fn` does: nothing comes back but the number of items that
---ended well, and the errors.
---@generic T
---@param list T[]|integer|fun(): T?
---@param fn fun(item: T, index: integer)
---@param opts? fork_map.MapOptions
---@return integer n
---@return table<integer, fork_map.Error>? errors
function Verbs:each(list, fn, opts)
  local verbs = planning.is_iterator(list) and stream or map_verbs
  return finish(verbs.each(target_of(self), list, fn, opts))
end

---`for i, value, err in fork_map.imap(list, fn) do`: the results in the order of
---the list, as soon as they are there.
---@generic T, R
---@param source T[]|integer|fun(): T?
---@param fn fun(item: T, index: integer): R
---@param opts? fork_map.MapOptions
---@return fun(): integer?, R?, fork_map.Error?
function Verbs:imap(source, fn, opts)
  return finish(stream.open("imap", true, target_of(self), source, fn, opts))
end

---The same in the order in which items end.
---@generic T, R
---@param source T[]|integer|fun(): T?
---@param fn fun(item: T, index: integer): R
---@param opts? fork_map.MapOptions
---@return fun(): integer?, R?, fork_map.Error?
function Verbs:imap_unordered(source, fn, opts)
  return finish(stream.open("imap_unordered", false, target_of(self), source, fn, opts))
end

---Fold the list in segments, `acc = step(acc, item, index)` in children, each
---from a copy of `init`, which must be neutral for `combine(acc, acc)`; that joins
---the segments here, in order.  Segments depend on the list's length alone.
---@generic T, A
---@param list T[]|integer
---@param step fun(acc: A, item: T, index: integer): A
---@param combine fun(a: A, b: A): A
---@param init A
---@param opts? fork_map.MapOptions
---@return A
---@return table<integer, fork_map.Error>? errors of items that were left out
function Verbs:reduce(list, step, combine, init, opts)
  return finish(reduce_verb.reduce(target_of(self), list, step, combine, init, opts))
end

---An item for which `pred(item, index)` is true, with its index; the rest is
---stopped then.  With `which = "first"` it is the first of the list.
---@generic T
---@param list T[]|integer
---@param pred fun(item: T, index: integer): any
---@param opts? fork_map.MapOptions
---@return integer? index nil when there is none
---@return T? item
function Verbs:find(list, pred, opts)
  return finish(map_verbs.find(target_of(self), list, pred, opts))
end

async.install(Verbs, Engine, target_of)
for name, verb in pairs(Verbs) do
  Engine[name], View[name] = verb, verb
end

---A view of the default engine, whichever it is when a call is made.
---@param opts fork_map.Options
---@return fork_map.View? view
---@return string? text what is wrong with `opts`
function M.new_view(opts)
  return derive(nil, {}, opts)
end

---Make an engine.
---@param opts fork_map.EngineOptions
---@return fork_map.Engine? engine
---@return string? text what is wrong with `opts`
function M.new(opts)
  local checked, text = options.check_both(opts)
  if not checked then
    return nil, text
  end
  local engine_opts, call_opts = options.split(checked)
  local prepared
  prepared, text = options.prepare(call_opts)
  if not prepared then
    return nil, text
  end
  return new_engine(engine_opts, call_opts, prepared)
end

return M
