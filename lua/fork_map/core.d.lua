---@meta
-- SPDX-License-Identifier: MIT
-- fork_map.core: the C half of the module.  No part of the public interface:
-- arguments are checked as far as memory safety needs it, names may change.

---@class fork_map.core
---@field version string
---@field Error table metatable of errors
---@field null lightuserdata
local core = {}

---@class fork_map.core.Engine: userdata
---@class fork_map.core.Options: userdata
---@class fork_map.core.Future: userdata

---Collected: cancels what runs at once and waits for its end.
---@param opts table options of an engine, checked; callbacks may be false
---@return fork_map.core.Engine
function core.engine_new(opts) end

---@param engine fork_map.core.Engine
---@param opts table
function core.engine_configure(engine, opts) end

---Whether a blocking call may begin: nil if so, else why not.
---@param engine fork_map.core.Engine
---@return "stale"|"callback"|"finalizer"|"collected"|nil
function core.engine_state(engine) end

---Do what there is to do; wait at most `seconds` for something.
---@param engine fork_map.core.Engine
---@param seconds number
---@return integer? settled how many futures
---@return string? name of the code, such as "EINTR"
function core.engine_step(engine, seconds) end

---@param engine fork_map.core.Engine
function core.engine_close(engine) end

---@param engine fork_map.core.Engine
---@return table<"spawned"|"settled"|"queued"|"running"|"parked", integer>
function core.engine_stats(engine) end

---Convert the options of a call, once.  All times are seconds, all sizes bytes.
---@param opts table checked; limits are not in a table of their own
---@return fork_map.core.Options
function core.options(opts) end

---A call that is not started yet.
---@param engine fork_map.core.Engine
---@param options fork_map.core.Options
---@param is_local boolean? its starter and waiter holds it in its newest to-be-closed variable
---@return fork_map.core.Future
function core.future(engine, options, is_local) end

---Start it, and with `is_local` wait as wait() does.  Raises a fork_map.Error of kind
---"closed" or "spawn".
---@param future fork_map.core.Future
---@param fn function
---@param ... any
---@return boolean settled
function core.start(future, fn, ...) end

---Step the future's engine once, unless it has settled.
---@param future fork_map.core.Future
---@return boolean settled
function core.wait(future) end

---@param future fork_map.core.Future
---@return boolean
function core.settled(future) end

---The process id of its living child.
---@param future fork_map.core.Future
---@return integer?
function core.pid(future) end

---@param future fork_map.core.Future
---@param seconds? number grace; absent: the call's own
---@return boolean effect
function core.cancel(future, seconds) end

---The values of a settled future; raises the fork_map.Error of a failed one.
---@param future fork_map.core.Future
---@return any ...
function core.result(future) end

---@param before? fun()
---@param parent? fun()
---@param child? fun()
function core.at_fork(before, parent, child) end

---@return number before seconds that a fork took before
---@return number after
---@return integer bytes that were collapsed into huge pages
function core.prepare() end

---@generic T: table
---@param t? T
---@return T
function core.array(t) end

---The bytes of the values and the number of their format.
---@param codec string|fork_map.Codec
---@param ... any
---@return string? bytes
---@return integer|string format or the path of what cannot cross
---@return string? reason why it cannot
function core.encode(codec, ...) end

---@param codec string|fork_map.Codec|integer
---@param bytes string
---@param budget? integer
---@return any ...
function core.decode(codec, bytes, budget) end

return core
