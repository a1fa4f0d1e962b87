-- SPDX-License-Identifier: MIT
-- Items without a process: workers = 0, and maps inside of workers.  The same
-- values, order, errors and random numbers; what an item changes is seen.

local core = require "fork_map.core"

local M = {}

-- Items that are being worked on here, innermost last: { index =, attempt = }.
local stack = {}

-- What ends a map by stop(): never seen by the user's code but in a pcall.
local Stop = { __name = "fork_map.stop", __tostring = function()
  return "fork_map.stop() was called"
end }

-- What ends an item or a map when its time is over.
local Late = { __name = "fork_map.late", __tostring = function()
  return "the time is over"
end }

-- Instructions between two looks at the clock.
local HOOK_COUNT = 1000

---The item that is worked on in this process without one of its own.
---@return table?
function M.current()
  return stack[#stack]
end

---End the innermost map that runs here.
function M.stop(value)
  error(setmetatable({ value = value }, Stop), 0)
end

local function failure(plan, item, kind, message)
  return setmetatable({
    kind = kind, message = message, index = item.index, attempt = item.attempt,
    name = plan.opts.name or nil,
  }, core.Error)
end

-- The value as it is after it has crossed.
local function cross(plan, item, value)
  local codec = plan.opts.codec or "auto"
  local bytes, format, reason = core.encode(codec, value)
  if not bytes then
    local err = failure(plan, item, "encode", reason)
    err.path = format
    return false, err
  end
  if type(codec) == "table" or codec == "cjson" then
    format = codec
  end
  local ok, crossed = pcall(core.decode, format, bytes)
  if ok then
    return true, crossed
  end
  local kind, message = tostring(crossed):match("^(%l+): (.*)$")
  return false, failure(plan, item, kind or "protocol", message or tostring(crossed))
end

-- Call `fn` with a look at the clock now and then.
local function call_until(deadline, fn, ...)
  if not deadline then
    return fn(...)
  end
  local hook, mask, count = debug.gethook()
  debug.sethook(function()
    if core.now() >= deadline then
      error(setmetatable({ deadline = deadline }, Late), 0)
    end
  end, "", HOOK_COUNT)
  local results = table.pack(pcall(fn, ...))
  debug.sethook(hook, mask, count)
  if not results[1] then
    error(results[2], 0)
  end
  return table.unpack(results, 2, results.n)
end

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

-- What the item's error amounts to.
local function explain(plan, item, raised)
  if getmetatable(raised.value) == Late then
    return failure(plan, item, "timeout", "the time limit was exceeded")
  end
  local err = failure(plan, item, "error", text_of(raised.value))
  err.value = raised.value
  err.traceback = raised.traceback
  return err
end

-- One attempt of an item.
local function attempt(plan, item, deadline)
  local opts = plan.opts
  local state
  if opts.seed then
    state = core.random_state()
    core.random_seed(opts.seed, item.index)
  end
  if opts.timeout then
    deadline = math.min(deadline or math.huge, core.now() + opts.timeout)
  end
  stack[#stack + 1] = item
  local ok, value = xpcall(call_until, function(value)
    return { value = value, traceback = debug.traceback(nil, 2) }
  end, deadline, plan.fn, plan.get(item.index), item.index)
  stack[#stack] = nil
  if state then
    core.random_state(state)
  end
  if ok then
    if plan.want == "truth" then
      value = not not value
    elseif plan.want == "nothing" then
      value = nil
    end
    return cross(plan, item, value)
  end
  if getmetatable(value.value) == Stop then
    error(value.value, 0)
  end
  return false, explain(plan, item, value)
end

local RETRIED = { signal = true, exit = true, no_result = true }

local function is_retried(opts, kind)
  if not opts.retry_on then
    return RETRIED[kind]
  end
  for _, name in ipairs(opts.retry_on) do
    if name == kind then
      return true
    end
  end
end

---Work on one item.
---@return boolean ok
---@return any value or error
function M.run_item(plan, index, deadline)
  local item = { index = index, attempt = 1, on_event = plan.opts.on_event }
  while true do
    local ok, value = attempt(plan, item, deadline)
    if ok or item.attempt > (plan.opts.retries or 0) or not is_retried(plan.opts, value.kind) then
      return ok, value
    end
    item.attempt = item.attempt + 1
  end
end

---True, and its value, when `err` is that of stop().
function M.is_stop(err)
  if getmetatable(err) == Stop then
    return true, err.value
  end
  return false
end

---Work on the items 1 to plan.n one after the other.  `on_item(index, ok, value)`
---may return true to end that.
---@return table? stopped { value } of stop()
---@return fork_map.Error? failure of the whole
function M.run(plan, on_item)
  local opts = plan.opts
  local deadline = opts.deadline and core.now() + opts.deadline
  if opts.init then
    opts.init()
  end
  for index = 1, plan.n do
    local ok, has_ended, value = pcall(M.run_item, plan, index, deadline)
    if not ok then
      local is_stop, stopped = M.is_stop(has_ended)
      if is_stop then
        return { stopped }
      end
      error(has_ended, 0)
    end
    if deadline and core.now() >= deadline then
      return nil, failure(plan, {}, "timeout", "the deadline has passed")
    end
    if on_item(index, has_ended, value) then
      break
    end
  end
  if opts.exit then
    opts.exit()
  end
end

return M
