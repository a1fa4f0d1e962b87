---@meta
-- SPDX-License-Identifier: MIT
-- fork_map.core: the C half of the module.  No part of the public interface:
-- arguments are checked as far as memory safety needs it, names may change.

---@class fork_map.core
---@field version string
---@field Error table metatable of errors
---@field null lightuserdata
---@field late table what an item in this process meets when its time is over
local core = {}

---@class fork_map.core.Engine: userdata
---@class fork_map.core.Options: userdata
---@class fork_map.core.Future: userdata
---@class fork_map.core.Map: userdata

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
---@param seconds number 0 to 1e9
---@param rests? boolean wait also when nothing is alive
---@return integer? settled how many futures
---@return string? name of the code, such as "EINTR"
function core.engine_step(engine, seconds, rests) end

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

---@class fork_map.core.MapOptions
---@field n integer items
---@field workers integer
---@field chunk_min? integer
---@field chunk_max? integer
---@field isolate? "worker"|"chunk"|"item"
---@field max_tasks? integer
---@field max_rss? integer
---@field max_active? integer
---@field deadline? number seconds
---@field init? fun()
---@field exit? fun()
---@field eager? boolean a step ends when an item has
---@field want? "value"|"truth"|"nothing" what of the results comes back
---@field log? boolean tell which items have ended
---@field stops_at_failure? boolean

---A map that is not started yet.  Collected or closed: its workers are killed.
---@param engine fork_map.core.Engine
---@param options fork_map.core.Options
---@param opts fork_map.core.MapOptions
---@param fn function
---@param list? table nil: the items are their numbers
---@return fork_map.core.Map
function core.map_new(engine, options, opts, fn, list) end

---Fork its workers.  Raises a fork_map.Error of kind "closed" or "spawn".
---@param map fork_map.core.Map
function core.map_start(map) end

---Step its engine once, at most `seconds` long.
---@param map fork_map.core.Map
---@param seconds number
---@return boolean over
---@return integer settled items that have ended
---@return integer failed of them
---@return integer logged places of the log that are filled
---@return integer events places of the events that are filled, two for each
function core.map_step(map, seconds) end

---Where results, errors, the log and the events come to.
---@param map fork_map.core.Map
---@return table<integer, any> results
---@return table<integer, fork_map.Error> errors
---@return integer[]? log indices of items as they ended
---@return any[] events index, value, index, value, …
function core.map_tables(map) end

---What was in these was taken: they are filled from 1 again.
---@param map fork_map.core.Map
---@param log boolean
---@param events boolean
function core.map_rewind(map, log, events) end

---So many more items were consumed; for max_active.
---@param map fork_map.core.Map
---@param n integer
function core.map_consume(map, n) end

---@param map fork_map.core.Map
---@param seconds? number grace; absent: that of the map
function core.map_stop(map, seconds) end

---Why it is over before its time.
---@param map fork_map.core.Map
---@return fork_map.Error?
function core.map_failure(map) end

---@param map fork_map.core.Map
---@return { [1]: any }? what stop() was given
function core.map_stopped(map) end

---Kill what runs, and wait for its end.
---@param map fork_map.core.Map
function core.map_close(map) end

---Give the next item of a source.
---@param map fork_map.core.Map
---@param item any
---@return integer|false|nil bytes of items that wait; false: it takes no more; nil: it cannot cross
---@return string? path
---@return string? reason
function core.map_feed(map, item) end

---The next number is used up without an item.
---@param map fork_map.core.Map
---@return boolean
function core.map_feed_none(map) end

---There are no more items.
---@param map fork_map.core.Map
function core.map_feed_end(map) end

---@param map fork_map.core.Map
---@return integer n items without an outcome
---@return integer bytes of them
function core.map_waiting(map) end

---Where this runs, in a child.
---@return integer? id
---@return integer pid
---@return integer? index of the item
---@return integer attempt
function core.worker() end

---Is this a worker of a map, or a child below one?
---@return boolean
function core.is_below_map() end

---@param value any
---@return boolean? sent
function core.emit(value) end

---Ends the map, and this process; comes back where there is none.
---@param value any
function core.stop(value) end

---@return boolean
function core.cancelled() end

---`acc = fn(acc, item, i)` for the items `first` to `last` but those in `skip`.
---@generic A
---@param fn fun(acc: A, item: any, index: integer): A
---@param acc A
---@param list? table nil: the items are their numbers
---@param first integer
---@param last integer
---@param skip table<integer, any>
---@param at? integer[] gets the item that it is at; absent: the parent is told
---@return A
function core.fold(fn, acc, list, first, last, skip, at) end

---Call `fn(...)` here as in a child: nothing yields out of it, and it is over
---when its time is.
---@param till number? by now(); nil: for ever
---@param handler fun(value: any): any message handler
---@param fn function
---@param ... any
---@return boolean ok
---@return any value its first, or what the handler made of the error
function core.call_inline(till, handler, fn, ...) end

---Sleep, or a little less when a signal comes.
---@param seconds number 0 to 1
function core.pause(seconds) end

---@return number seconds by a clock that only goes forward
function core.now() end

---@return integer n processors that this process may use
function core.count_cpus() end

---@param fd integer
---@return boolean
function core.is_terminal(fd) end

---@return integer
function core.own_pid() end

---A hash of the texts and their lengths, 64 bits.
---@param ... string
---@return integer
function core.checksum(...) end

---The state of math.random, or put it back.
---@param state? string
---@return string?
function core.random_state(state) end

---math.random gives what it gives in a worker with this seed for this item.
---@param seed integer
---@param index integer
function core.random_seed(seed, index) end

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

---Feed the next item to a map with a source.
---@param map fork_map.core.Map
---@param item any
---@return integer|false|nil bytes of items that wait; false: no more; nil: it cannot cross
---@return string? path of what cannot cross
---@return string? reason why it cannot
function core.map_feed(map, item) end

---The next number belongs to an item that no worker gets.
---@param map fork_map.core.Map
---@return boolean
function core.map_feed_none(map) end

---No more items come.
---@param map fork_map.core.Map
function core.map_feed_end(map) end

---@param map fork_map.core.Map
---@return integer items that have no outcome yet
---@return integer bytes of them
function core.map_waiting(map) end

---In a child: call `fn()` when it is asked to stop, and leave.
---@param fn fun()
---@return boolean in_child
function core.on_cancel(fn) end

---@class fork_map.core.Beacon: userdata

---Start a call whose settling next_settled() tells.  Raises a fork_map.Error of kind
---"closed" or "spawn".
---@param engine fork_map.core.Engine
---@param options fork_map.core.Options
---@param cell table what next_settled() gives; the engine keeps it until then
---@param fn function
---@param ... any
---@return fork_map.core.Future
function core.spawn(engine, options, cell, fn, ...) end

---@param engine fork_map.core.Engine
---@return table? cell of the first that was told of and not taken yet
function core.next_settled(engine) end

---@class fork_map.core.Watch: userdata

---Have next_settled() give `entry` once, when the descriptor is ready.
---@param engine fork_map.core.Engine
---@param fd integer
---@param mode "r"|"w"
---@param entry table that gets the watch as entry[1]
---@return fork_map.core.Watch?
---@return string? message
---@return string? name
function core.watch(engine, fd, mode, entry) end

---Nothing comes of it any more.  May be repeated.
---@param watch fork_map.core.Watch
function core.unwatch(watch) end

---@param future fork_map.core.Future
---@return "queued"|"running"|"settled"
function core.status(future) end

---What a settled one used and printed.
---@param future fork_map.core.Future
---@return { usage: fork_map.Usage?, stdout: string?, stderr: string?, dropped: integer? }
function core.details(future) end

---@param future fork_map.core.Future a settled one
---@return boolean ok
---@return any ... its values, or its fork_map.Error
function core.outcome(future) end

---Its outcome was taken.
---@param future fork_map.core.Future
function core.release(future) end

---How many children it may have at once.
---@param engine fork_map.core.Engine
---@return integer
function core.max_children(engine) end

---Give an error to on_unhandled, or warn.
---@param engine fork_map.core.Engine
---@param err any
---@param why "callback"|"unseen"
function core.unhandled(engine, err, why) end

---As xpcall(fn, handler, ...), but `fn` cannot yield.
---@param handler fun(err: any): any
---@param fn function
---@param ... any
---@return boolean ok
---@return any ...
function core.call(handler, fn, ...) end

---@return integer generation another one in every forked process
function core.generation() end

---When the loop has something to do in Lua: pollfd() and timeout() tell it.
---@param engine fork_map.core.Engine
---@param at number|boolean|nil by now(); true: at once
function core.alarm(engine, at) end

---@param engine fork_map.core.Engine
---@return integer?
function core.pollfd(engine) end

---@param engine fork_map.core.Engine
---@return number?
function core.timeout(engine) end

---Wait until one of the engines has something to do.
---@param engines fork_map.core.Engine[]
---@param seconds number
function core.wait_any(engines, seconds) end

---A descriptor that is readable when the engine has something to do, and for ever
---once it is lit.
---@param engine fork_map.core.Engine
---@return fork_map.core.Beacon? nil where there are no such descriptors
function core.beacon(engine) end

---@param beacon fork_map.core.Beacon
---@return integer
function core.beacon_fd(beacon) end

---@param beacon fork_map.core.Beacon
function core.beacon_light(beacon) end

---Whether a callback of the engine runs.
---@param engine fork_map.core.Engine
---@return boolean
function core.in_callback(engine) end

---Take the light back, to use it again.
---@param beacon fork_map.core.Beacon
---@return boolean can_be_used
function core.beacon_dim(beacon) end

---Start a worker of a pool: next_settled() gives the cell also when it has said
---something.  Raises as spawn() does.
---@param engine fork_map.core.Engine
---@param options fork_map.core.Options without retries
---@param cell table
---@param fn function
---@param ... any
---@return fork_map.core.Future
function core.hire(engine, options, cell, fn, ...) end

---Whether next_settled() would give a cell.
---@param engine fork_map.core.Engine
---@return boolean
function core.has_settled(engine) end

---Give a worker a call, which it knows by the number and finds with the tag.
---@param worker fork_map.core.Future
---@param format integer
---@param bytes string
---@param tag integer
---@return integer? number nil: it takes no more
function core.give(worker, format, bytes, tag) end

---@param worker fork_map.core.Future
---@param number integer
---@return boolean back it was not begun, and will not be
function core.take_back(worker, number) end

---@param worker fork_map.core.Future
---@param number integer
---@return number? at by now(); nil: it was not begun
function core.begun_at(worker, number) end

---It begins no more calls, and ends after those that it has.
---@param worker fork_map.core.Future
function core.order_leave(worker) end

---@param worker fork_map.core.Future
---@param kind "timeout"|"cancelled"|"protocol"
---@param grace? number
---@return boolean effect
function core.stop_worker(worker, kind, grace) end

---Read what it has said so far.
---@param worker fork_map.core.Future
function core.listen(worker) end

---The next thing that it has said: 0 that it is ready, 1 that it retires, 2 an event,
---3 and more what a call has ended with.
---@param worker fork_map.core.Future
---@return integer? what nil: nothing
---@return integer number of the call, 0: of none
---@return number began when that was
---@return boolean ok
---@return any ... values, or the error
function core.hear(worker) end

---In a worker: it is ready for calls.
---@return boolean is_worker
function core.serve_begin() end

---It begins no more calls.
---@return boolean alive its parent
function core.serve_retire() end

---Begin the next call.
---@return integer|false|nil number false: there is none now; nil: it has to leave
---@return integer tag
---@return any ... arguments
function core.serve_take() end

---Sleep until there may be a call, or one of these engines has work.
---@param engines? fork_map.core.Engine[]
---@param seconds? number
---@return boolean alive its parent
function core.serve_sleep(engines, seconds) end

---@param number integer
---@param ... any what the call gives
---@return boolean alive
function core.serve_answer(number, ...) end

---@param number integer
---@param traceback string?
---@param value any what was raised
---@return boolean alive
function core.serve_fail(number, traceback, value) end

---@param number integer of the call, 0: none
---@param value any
function core.serve_emit(number, value) end

---@return integer bytes that this process has in memory
function core.rss() end

---As encode() for what a function is given: paths begin with "arg1".
---@param codec string|table
---@param ... any
---@return string? bytes
---@return integer|string format or path
---@return string? message
function core.encode_args(codec, ...) end

---@return string? path of the program that this process runs
function core.own_program() end

return core
