-- SPDX-License-Identifier: MIT
-- What specs of futures share: gates that children wait at, engines that keep
-- what nobody handled, and the collector's help.

local fork_map = require "fork_map"
local process = require "support.process"
local sys = require "specs_core"

local M = {}

---A gate: children `wait()` at it until the host calls `open()`.
function M.gate()
  local reader, writer = sys.pipe()
  local gate = {}
  function gate.wait(...)
    sys.read(reader)
    sys.write(writer, "!") -- for the next that waits
    return ...
  end
  function gate.open()
    if reader then
      sys.write(writer, "!")
      sys.close(reader)
      sys.close(writer)
      reader = nil
    end
  end
  return setmetatable(gate, { __close = gate.open })
end

---A pipe for what children tell: `tell(text)` there, `hear()` here.
function M.telephone()
  local reader, writer = sys.pipe()
  local phone = {}
  function phone.tell(text)
    sys.write(writer, tostring(text) .. "\n")
  end
  function phone.hear()
    local text = ""
    repeat
      text = text .. sys.read(reader)
    until text:sub(-1) == "\n"
    return text:sub(1, -2)
  end
  function phone.hear_pid()
    return math.tointeger(tonumber(phone.hear()))
  end
  return setmetatable(phone, { __close = function()
    sys.close(reader)
    sys.close(writer)
  end })
end

---An engine whose unhandled errors are kept as "why: message" in the list that
---comes second.
function M.new_engine(opts)
  local log = {}
  opts = opts or {}
  opts.on_unhandled = function(err, why)
    log[#log + 1] = why .. ": " .. tostring(err):gsub("^.-:%d+: ", "")
  end
  return fork_map.new(opts), log
end

---Collect what nobody has any more, and let the engine act on it.
function M.collect(engine)
  for _ = 1, 3 do
    collectgarbage()
    engine:step(0)
  end
end

---Step the engine until `condition` holds.
function M.step_until(engine, condition, what)
  process.eventually(function()
    engine:step(0.01)
    return condition()
  end, what)
end

---Where `fn` raises what text: "file.lua:12: text", the directory left out.
function M.misuse(fn, ...)
  local ok, message = pcall(fn, ...)
  assert(not ok, "it did not raise")
  return (tostring(message):gsub("^.-spec/", "spec/"))
end

return M
