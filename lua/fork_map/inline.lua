-- SPDX-License-Identifier: MIT
-- Items and calls without a process: workers = 0, maps inside of workers, and the
-- executor inline.  The same values, order, errors and random numbers; what they
-- change is seen.

local core = require "fork_map.core"
local loops = require "fork_map.loop"

local M = {}

local call_inline, late, now, own_pid = core.call_inline, core.late, core.now, core.own_pid

-- Items that are being worked on here, innermost last: { index =, place =,
-- attempt =, opts =, pid =, events =, stopped = }.  A child inherits those of its parent.
local stack = {}

-- Calls that may yield, by the coroutine that they run in, innermost; `depth` is how
-- many items were worked on when one began.
local calls = setmetatable({}, { __mode = "k" })

-- What stop() raises, to get out of the item.
local Stop = setmetatable({}, { __name = "fork_map.stop", __tostring = function()
  return "fork_map.stop() was called"
end })

---The item that is worked on in this process without one of its own.
---@return table?
function M.current()
  local item, call = stack[#stack], calls[coroutine.running()]
  if call and call.depth >= #stack then
    item = call
  end
  if item and item.pid == own_pid() then
    return item
  end
end

local function finish_decode(ok, ...)
  if ok then
    return true, ...
  end
  local text = tostring(...)
  local kind, message = text:match("^(%l+): (.*)$")
  return false, kind or "protocol", message or text
end

-- The values as they are after they have crossed, or false, kind, message and path.
local function cross(codec, ...)
  local bytes, format, reason = core.encode(codec, ...)
  if not bytes then
    return false, "encode", reason, format
  end
  if type(codec) == "table" or codec == "cjson" then
    format = codec
  end
  return finish_decode(pcall(core.decode, format, bytes))
end

-- What is sent aside of a result must cross; it raises if it cannot.
local function cross_aside(item, value)
  local ok, crossed, message, path = cross(item.opts.codec or "auto", value)
  if not ok then
    path = path and path:gsub("^result", "value") .. ": " or ""
    error(("fork_map: %s%s"):format(path, message), 4) -- of fork_map.emit() or stop()
  end
  return crossed
end

---Keep `value` for the handler of events: as from a worker, it is called from
---outside of the item.
function M.emit(item, value)
  local crossed = cross_aside(item, value)
  if item.opts.on_event then
    item.events[#item.events + 1] = { crossed }
  end
end

---End the innermost map that runs here.
function M.stop(item, value)
  item.stopped = { cross_aside(item, value) }
  error(Stop, 0)
end

local function failure(opts, item, kind, message)
  return setmetatable({
    kind = kind, message = message, index = item.index, attempt = item.attempt,
    name = opts.name or nil,
  }, core.Error)
end

---The text of what was raised.
---@return string
local function text_of(value)
  if type(value) == "string" or type(value) == "number" then
    return tostring(value)
  end
  local meta = getmetatable(value)
  if type(meta) == "table" and meta.__tostring then
    local ok, text = pcall(tostring, value)
    if ok then
      return text
    end
  end
  return ("(error object is a %s value)"):format(type(value))
end

---For xpcall(): what was raised, and where.
local function note_error(value)
  return { value = value, traceback = debug.traceback(nil, 2) }
end
M.text_of, M.note_error = text_of, note_error

-- The error of what note_error() noted.
local function to_failure(opts, item, noted)
  local err = failure(opts, item, "error", text_of(noted.value))
  err.traceback = noted.traceback
  local has_crossed, crossed = cross("auto", noted.value)
  if has_crossed then
    err.value = crossed
  end
  return err
end

-- There may have been no memory, or no stack, for the handler.
local function noted_of(raised)
  return type(raised) == "table" and raised or { value = raised }
end

-- Call a function of the user's: true and its first value, or false and the
-- error that it amounts to; nil when it has called stop().
local function call(opts, item, untl, fn, ...)
  item.pid, item.opts, item.events = own_pid(), opts, {}
  local depth = #stack
  stack[depth + 1] = item
  local ok, value = call_inline(untl, note_error, fn, ...)
  for i = #stack, depth + 1, -1 do
    stack[i] = nil
  end
  if item.stopped then
    return nil
  end
  local is_late = untl and now() >= untl
  if not ok then
    value = noted_of(value)
  end
  if not ok and value.value == late and not is_late then
    error(late, 0) -- it is for a map around this one
  elseif is_late then
    local text = opts.timeout and "the item took longer than its timeout of %.6g s"
      or "the deadline has passed"
    return false, failure(opts, item, "timeout", text:format(opts.timeout or 0))
  elseif ok then
    return true, value
  end
  return false, to_failure(opts, item, value)
end

---An item of a source, as it comes to a worker, or nil and its failure.
---@param index integer
---@param item any
---@return any crossed
---@return fork_map.Error? failure
function M.receive(plan, index, item)
  local ok, kind, message, path = cross(plan.opts.codec or "auto", item)
  if ok then
    return kind
  end
  local err = failure(plan.opts, { index = index, attempt = 1 }, kind, message)
  err.path = path and path:gsub("^result", "arg1") or nil
  return nil, err
end

local WANTED = {
  truth = function(value)
    return not not value
  end,
  nothing = function() end,
}

-- One attempt of an item.
local function attempt(plan, item, deadline)
  local opts = plan.opts
  local state, untl = nil, deadline
  if opts.seed then
    state = core.random_state()
    core.random_seed(opts.seed, item.index)
  end
  if opts.timeout then
    untl = math.min(deadline or math.huge, now() + opts.timeout)
  end
  local ok, value = call(opts, item, untl, plan.fn, plan:get(item.place), item.index)
  if state then
    core.random_state(state)
  end
  for _, event in ipairs(item.events) do
    opts.on_event(event[1], item.index)
  end
  if not ok then
    return ok, value
  end
  local wanted = WANTED[plan.want]
  if wanted then
    return true, wanted(value)
  end
  local kind, message, path
  ok, kind, message, path = cross(opts.codec or "auto", value)
  if ok then
    return true, kind
  end
  local err = failure(opts, item, kind, message)
  err.path = path
  return false, err
end

local RETRIED = { "signal", "exit", "no_result" }

local function is_retried(opts, item, kind, deadline)
  if item.attempt > (opts.retries or 0) or (deadline and now() >= deadline) then
    return false
  end
  for _, name in ipairs(opts.retry_on or RETRIED) do
    if name == kind then
      return true
    end
  end
  return false
end

-- Wait before the next attempt; hooks of the host run in between.
local function back_off(seconds, deadline)
  local at = math.min(now() + seconds, deadline or math.huge)
  while now() < at do
    core.pause(math.min(0.1, math.max(0, at - now())))
  end
end

---Work on the item at `place` of the list, whose number is the same unless the
---plan has others.
---@return boolean? ok nil when it has called stop()
---@return any value, or the error, or { value } of stop()
function M.run_item(plan, place, deadline)
  local opts, numbers = plan.opts, plan.numbers
  local item = { index = numbers and numbers[place] or place, place = place, attempt = 1 }
  local pause = opts.backoff or 0
  while true do
    local ok, value = attempt(plan, item, deadline)
    if ok == nil then
      return nil, item.stopped
    elseif ok or not is_retried(opts, item, value.kind, deadline) then
      return ok, value
    end
    back_off(pause, deadline)
    pause = pause * 2
    item.attempt = item.attempt + 1
  end
end

-- ------------------------------------------------------------------- calls

local function fail_crossing(opts, item, kind, message, path)
  local err = failure(opts, item, kind, message)
  err.path = path
  return { n = 2, false, err }
end

-- Left also when its coroutine is closed.
local Running = {}

function Running:__close()
  calls[self.co] = self.outer
end

-- In this coroutine, so that it may yield: packed values, true first, or false and
-- its error.
local function run_yieldable(opts, item, fn, ...)
  local co = coroutine.running()
  local _ <close> = setmetatable({ co = co, outer = calls[co] }, Running)
  item.pid, item.opts, item.events, item.depth = own_pid(), opts, {}, #stack
  calls[co] = item
  local values = table.pack(xpcall(fn, note_error, ...))
  if values[1] then
    return values
  end
  local noted = noted_of(values[2])
  local err = noted.value
  if getmetatable(err) == core.Error and err.kind == "cancelled"
    and loops.find_cancel(loops.get_context()) then
    return { n = 2, false, err } -- it was told to end, and has
  end
  return { n = 2, false, to_failure(opts, item, noted) }
end

-- The same under a hook, or with random numbers of its own: neither may be seen by
-- another coroutine, and so nothing yields.  Nor can it in an item, whose time limit
-- has to come through.
local function run_shut(opts, item, fn, ...)
  local state, values
  if opts.seed then
    state = core.random_state()
    core.random_seed(opts.seed, item.index or 1) -- of a single call, as of a first item
  end
  local ok, err = call(opts, item, opts.timeout and now() + opts.timeout or nil, function(...)
    values = table.pack(true, fn(...))
  end, ...)
  if state then
    core.random_state(state)
  end
  return ok and values or { n = 2, false, err }
end

local function is_in_item()
  local item = stack[#stack]
  return item and item.pid == own_pid()
end

local function attempt_call(opts, item, fn, args)
  local codec = opts.codec or "auto"
  local crossed = table.pack(cross(codec, table.unpack(args, 1, args.n)))
  if not crossed[1] then
    local path = crossed[4] and crossed[4]:gsub("^result(%d*)", function(number)
      return "arg" .. (number == "" and "1" or number)
    end)
    return fail_crossing(opts, item, crossed[2], crossed[3], path)
  end
  local is_shut = opts.timeout or opts.seed or is_in_item()
  local run = is_shut and run_shut or run_yieldable
  local values = run(opts, item, fn, table.unpack(crossed, 2, crossed.n))
  if not values[1] then
    return values
  end
  crossed = table.pack(cross(codec, table.unpack(values, 2, values.n)))
  if crossed[1] then
    return crossed
  end
  return fail_crossing(opts, item, table.unpack(crossed, 2, 4))
end

---A call in this process, whose arguments and values cross as to a child and back.
---@param opts table
---@param index integer? of the item that it is
---@param sleep fun(seconds: number)? how it waits between two attempts
---@param fn function
---@param args table packed
---@return table packed true and its values, or false and its error
function M.run_call(opts, index, sleep, fn, args)
  local item = { index = index, attempt = 1, is_call = true }
  local pause = opts.backoff or 0
  while true do
    local values = attempt_call(opts, item, fn, args)
    if values[1] or not is_retried(opts, item, values[2].kind) then
      return values
    end
    (sleep or back_off)(pause)
    pause = pause * 2
    item.attempt = item.attempt + 1
  end
end

---Run option `init` or `exit`.
---@return fork_map.Error? failure
function M.run_hook(plan, hook)
  if not hook then
    return nil
  end
  local ok, err = call(plan.opts, { attempt = 1 }, nil, hook)
  return not ok and err or nil
end

---Has the time of the whole passed?
---@return fork_map.Error? failure
function M.find_late(plan, deadline)
  if deadline and now() >= deadline then
    return failure(plan.opts, {}, "timeout", "the deadline has passed")
  end
end

---@return number? deadline
function M.get_deadline(plan)
  local seconds = plan.opts.deadline
  return seconds and now() + seconds or nil
end

local function run_all(plan, on_item)
  local deadline = M.get_deadline(plan)
  for index = 1, plan.n do
    local ok, value = M.run_item(plan, index, deadline)
    if ok == nil then
      return value
    end
    local err = M.find_late(plan, deadline)
    if err then
      return nil, err
    elseif on_item(index, ok, value) then
      return nil
    end
  end
end

---Work on the items 1 to plan.n, of which there are some, one after the other.
---`on_item(index, ok, value)` may return true to end that.
---@return table? stopped { value } of stop()
---@return fork_map.Error? failure of the whole
function M.run(plan, on_item)
  local err = M.run_hook(plan, plan.opts.init)
  if err then
    return nil, err
  end
  local ok, stopped, failed = pcall(run_all, plan, on_item)
  err = M.run_hook(plan, plan.opts.exit)
  if not ok then
    error(stopped, 0)
  end
  return stopped, failed or err
end

return M
