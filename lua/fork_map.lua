-- SPDX-License-Identifier: MIT
-- fork_map: run a function in a forked child, and get back exactly what it
-- returned, or an error that says why not.

local core = require "fork_map.core"
local engine = require "fork_map.engine"
local executors = require "fork_map.executor"
local inline = require "fork_map.inline"
local loops = require "fork_map.loop"
local map_verbs = require "fork_map.map"
local planning = require "fork_map.plan"
local server = require "fork_map.server"
local serving = require "fork_map.serve"
local templates = require "fork_map.template_open"

---`fork_map(fn, ...)` runs `fn(...)` in a child of this process and returns all
---its values.  The child is a copy of this process: upvalues, userdata and
---modules are simply there, and nothing that it changes is seen here.
---
---Raises a `fork_map.Error` when there are no values, whatever the reason.
---@class fork_map
---@field _VERSION string
---@field Error fork_map.Error the class of what a failed call raises
---@field null lightuserdata JSON's null, which is also cjson.null
---@field executor { inline: fork_map.InlineExecutor }
---@overload fun(fn: function, ...): ...
local M = {
  _VERSION = "fork_map " .. core.version,
  Error = require "fork_map.error",
  null = core.null,
  executor = { inline = executors.inline },
}

---Mark a table as a list, so that it is `[]` in JSON when it is empty.
---@generic T: table
---@param t? T a new table when absent
---@return T
function M.array(t)
  if t ~= nil and type(t) ~= "table" then
    error(("fork_map.array: a table is expected, not a %s"):format(type(t)), 2)
  end
  return core.array(t or {})
end

---A view with these options: `fork_map.with{timeout = 5}(fn, ...)`.
---@param opts fork_map.Options
---@return fork_map.View
function M.with(opts)
  local view, text = engine.new_view(opts)
  if not view then
    error(text, 2)
  end
  return view
end

---An engine of its own: own children, own options, defaults for its calls.
---@param opts? fork_map.EngineOptions
---@return fork_map.Engine
function M.new(opts)
  local made, text = engine.new(opts == nil and {} or opts)
  if not made then
    error(text, 2)
  end
  return made
end

---The engine that the module's own verbs use: one per Lua state, and another
---one in every child.
---@return fork_map.Engine
function M.engine()
  return engine.get_default()
end

local HOOKS = { before = true, parent = true, child = true }

---Register functions that run around every fork: `before` in the parent, the
---last registered first; `parent` and `child` afterwards in the order of
---registration.  An error in `before` gives up the fork (kind "spawn"): then
---`parent` runs for those whose `before` has run.  One in `child` is the child's
---failure (kind "error"), one in `parent` goes to on_unhandled.
---@param hooks { before?: fun(), parent?: fun(), child?: fun() }
function M.at_fork(hooks)
  if type(hooks) ~= "table" then
    error("fork_map.at_fork: a table {before =, parent =, child =} is expected", 2)
  end
  for name, hook in next, hooks do
    if not HOOKS[name] then
      error(('fork_map.at_fork: unknown hook "%s"'):format(tostring(name)), 2)
    elseif type(hook) ~= "function" then
      error(('fork_map.at_fork: hook "%s" must be a function'):format(name), 2)
    end
  end
  core.at_fork(hooks.before, hooks.parent, hooks.child)
end

---@class fork_map.PrepareReport
---@field before number seconds that a fork took before
---@field after number seconds that a fork takes now
---@field bytes integer of memory that are in huge pages by this call

---Make forks of a big host cheap: collect garbage and ask the kernel to
---collapse the heap into huge pages.  Takes time in proportion to the heap.
---@return fork_map.PrepareReport
function M.prepare()
  local before, after, bytes = core.prepare()
  return { before = before, after = after, bytes = bytes }
end

local plain = M.with {}

-- The verbs over many items are those of the plain view; see fork_map/verbs.lua.
for name, verb in pairs(engine.verbs) do
  M[name] = function(...)
    return verb(plain, ...)
  end
end

---A template: a small process of its own to fork from.  Without options it is forked
---off the default template, a fresh interpreter that is executed when it is needed
---first, and kept.
---@param opts? fork_map.TemplateOptions
---@return fork_map.Template
function M.template(opts)
  return engine.get_default():template(opts) -- a tail call: errors are the caller's
end

---First act of a program: the default template will be a copy of this process as it is
---now, instead of a fresh interpreter.  Later calls do nothing while that lives.
function M.early()
  templates.early(engine.get_default())
end

M.serve = server.serve

---A list of lists of `size` items each, the last may be shorter.  Each is made
---when it is asked for: `fork_map.map(fork_map.chunks(list, 512), fn)`.
---@param list table|integer
---@param size integer
---@return table
function M.chunks(list, size)
  local text, view = map_verbs.chunks(list, size)
  if text then
    error(text, 2)
  end
  return view
end

---A Lua file of a descriptor, such as one that came over a channel.  It belongs to the
---file from now on, which closes it.
---@param fd integer
---@param mode? string as of io.open(); "r" when absent
---@return file*? file
---@return string? message
---@return string? name such as "EBADF"
function M.file(fd, mode)
  if math.type(fd) ~= "integer" or fd < 0 then
    error("fork_map.file: a descriptor is expected", 2)
  elseif mode ~= nil and not (type(mode) == "string" and mode:find("^[rwa]%+?b?$")) then
    error('fork_map.file: the mode must be one of io.open(), such as "r" or "w"', 2)
  end
  return core.file(fd, mode or "r")
end

---@class fork_map.Worker
---@field id integer 1, 2, …; 0 for items that have no process of their own
---@field pid integer
---@field index integer? of the item
---@field attempt integer

---Where this runs: in a child, or for an item that has none of its own.
---@return fork_map.Worker? nil elsewhere
function M.worker()
  local item = inline.current()
  if item then
    return { id = 0, pid = core.own_pid(), index = item.index, attempt = item.attempt }
  end
  local id, pid, index, attempt = core.worker()
  if not id then
    return nil
  end
  local call, call_attempt = serving.current()
  if call then
    return { id = id, pid = pid, index = call, attempt = call_attempt }
  end
  return { id = id, pid = pid, index = planning.get_number(index), attempt = attempt }
end

---In an item of a map: send `value` to the option `on_event` of the verb,
---before the item's result.  Elsewhere it is dropped.
---@param value any
function M.emit(value)
  local item = inline.current()
  if item then
    inline.emit(item, value)
  elseif serving.is_here() then
    serving.emit(value)
  else
    core.emit(value)
  end
end

---In an item of a map: end the whole map now.  The verb returns what there is,
---with `results.stopped = value`.
---@param value any
function M.stop(value)
  local item = inline.current()
  if item and not item.is_call then
    inline.stop(item, value)
  elseif not item then
    core.stop(value)
  end
  error("fork_map.stop: not in an item of a map", 2)
end

---In a child: whether it was asked to end.  From its first call on, being asked
---does not end the child at once; it has the option `grace` to come to its end.  In
---a task: whether that was cancelled.
---@return boolean
function M.cancelled()
  local task = loops.current
  if task and not task.is_runner and not loops.is_stale() then
    return task.stop_error ~= nil
  end
  return core.cancelled()
end

---In a worker of a pool: have it replaced.  It begins no more calls, and ends when those
---that it has begun have ended.
function M.retire()
  if not serving.retire() then
    error("fork_map.retire: not in a worker of a pool", 2)
  end
end

---In a child: when it is asked to end, call `fn()` before its next instruction, and
---leave.  Of several functions the last comes first.  They have the option `grace`.
---@param fn fun()
function M.on_cancel(fn)
  if type(fn) ~= "function" then
    error(("fork_map.on_cancel: a function is expected, not a %s"):format(type(fn)), 2)
  elseif not core.on_cancel(fn) then
    error("fork_map.on_cancel: not in a child", 2)
  end
end

return setmetatable(M, {
  __name = "fork_map",
  __call = function(_, ...)
    return plain(...)
  end,
})
