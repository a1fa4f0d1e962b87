-- SPDX-License-Identifier: MIT
-- What the Lua module does in every host of the zoo; run by zoo_lua.c.

local host = ...
local fork_map = require "fork_map"

local engine = fork_map.new { on_threads = "ignore" }
local call = engine:with {}

local function check(condition, what)
  if not condition then
    error(what or "check failed", 2)
  end
end

-- The error of a call that must fail.
local function failure(view, fn, ...)
  local ok, err = pcall(view, fn, ...)
  check(not ok, "the call did not fail")
  check(getmetatable(err) == fork_map.Error, tostring(err))
  return err
end

-- An end that only its status tells: nobody knows it where the host takes it
-- and the kernel does not keep it.
local function check_status(err, kind)
  if err.kind == "no_result" and kind ~= "no_result" then
    check(host.loses_status and not host.can_ask, "the status is known")
    check(err.message:find("taken by the host", 1, true), err.message)
    return
  end
  check(err.kind == kind, tostring(err))
end

local function kill_self()
  local pid = io.open("/proc/self/stat"):read("n")
  os.execute("kill -9 " .. pid)
  for _ = 1, math.huge do end
end

-- Values: count, nils, numbers to the last bit whatever the locale says.
local values = table.pack(call(function(...)
  return nil, 0.1, 1e300, "x", { 1.5, 2 }, (...), nil
end, 7))
check(values.n == 7 and values[1] == nil and values[2] == 0.1 and values[3] == 1e300)
check(values[5][1] == 1.5 and math.type(values[5][2]) == "integer" and values[6] == 7)
check(#call(string.rep, "ab", 1000000) == 2000000)

-- Failures.
local err = failure(call, function() error { code = 7 } end)
check(err.kind == "error" and err.value.code == 7)
err = failure(call, function() return { a = print } end)
check(err.kind == "encode" and err.path == "result.a")
err = failure(call, function() os.exit(3, true) end)
check(err.kind == "exit" and err.exit_code == 3)
check_status(failure(call, kill_self), "signal")
err = failure(engine:with { timeout = 0.03, grace = 0 }, function() while true do end end)
check(err.kind == "timeout")
err = failure(engine:with { limits = { memory = "8M" } }, string.rep, "x", 1 << 26)
check(err.kind == "limit" and err.limit == "memory", tostring(err))

-- Output, and files of the host that it does not keep.
err = failure(engine:with { output = "capture" }, function()
  print("one")
  io.stderr:write("two\n")
  error("three")
end)
check(err.stdout == "one\n" and err.stderr == "two\n", err.stdout)
local lines = {}
engine:with { output = function(line) lines[#lines + 1] = line end }(print, "a line")
check(lines[1] == "a line" and #lines == 1)
local files = {} -- the first may be standard streams, where there are none
for i = 1, 4 do
  files[i] = assert(io.tmpfile())
end
local file <close> = files[4]
file:setvbuf("no")
engine:with { keep_fds = {} }(function() file:write("x") end)
for i = 1, 3 do
  files[i]:close()
end
check(file:seek("end") == 0, "a child wrote into a file of the host")

-- Again, and below.
local attempts = { assert(io.tmpfile()) }
local view = engine:with { retries = 3 }
check(view(function()
  attempts[1]:write("x")
  attempts[1]:flush()
  if attempts[1]:seek("end") < 3 then
    kill_self()
  end
  return "third"
end) == "third")
attempts[1]:close()
-- A thread may read a file at the fork, which then is open in the child: where
-- few may be, the next one cannot be made below it.
view = engine:with { retries = 5, retry_on = { "error" } }
check(view(function()
  return fork_map.with {}(function() return "below" end)
end) == "below")

-- What needs a lock that a thread of the host may have held.
for _ = 1, 10 do
  check(call(function()
    os.setlocale("C", "collate")
    package.loadlib("*", "*")
    package.loadlib("libc.so.6", "*")
    return os.date("!%Y", os.time { year = 1999, month = 7, day = 1 })
  end) == "1999")
end

engine:close()
check(failure(call, print).kind == "closed")
