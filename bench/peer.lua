-- SPDX-License-Identifier: MIT
-- Ours among the peers: one workload after the other, as a common runner calls
-- its programs.
--
--   lua5.4 bench/peer.lua WORKLOAD [REPS]
--
-- prints lines "WORKLOAD NAME FIGURE UNIT"; the status is 1 for a workload that
-- there is none of here, 3 when a result is wrong.  The module is found by
-- LUA_PATH and LUA_CPATH, or in the build tree that FORK_MAP_BUILD names.
--
--   W1 one call   W2a, W2b the same with 1 and 4 GiB of heap
--   W3 a million tiny items   W4 items of 1 ms   W5 items of growing cost
--   W6s strings of 4 MiB   W6d lists of 100,000 floats   W7 a process per item

local build = os.getenv "FORK_MAP_BUILD"
if build then
  local root = arg[0]:match("^(.*/)bench/") or "./"
  package.path = ("%slua/?.lua;%s"):format(root, package.path)
  package.cpath = ("%s/lua/?.so;%s"):format(build, package.cpath)
end

local core = require "fork_map.core"
local fork_map = require "fork_map"

local workload, reps = arg[1], tonumber(arg[2] or 5)
local now = core.now

-- Iterations of the generator below that take about a millisecond.
local ITERS = math.tointeger(tonumber(os.getenv "ITERS" or 119000))
-- Measure this candidate alone, as for memory.
local ONLY = os.getenv "ONLY"

local NAME = "fork_map"

local function print_figure(name, figure, unit)
  print(("%s %s %.6g %s"):format(workload, name, figure, unit))
  io.stdout:flush()
end

local function check(ok)
  if not ok then
    io.stderr:write(("bench/peer.lua: %s: WRONG RESULT\n"):format(workload))
    os.exit(3)
  end
end

-- Lehmer's generator, a fixed amount of interpreter work.
local function work(x, n)
  for _ = 1, n do
    x = x * 16807 % 2147483647
  end
  return x
end

local function big_string(i)
  return string.char(65 + i % 26):rep(4096):rep(1024)
end

local function big_list(i)
  local t = {}
  for j = 0, 99999 do
    t[j + 1] = i + 0.5 * j
  end
  return t
end

local function is_big_string(i, s)
  local c = 65 + i % 26
  return #s == 4 << 20 and s:byte(1) == c and s:byte(-1) == c and s:byte(#s // 2) == c
end

local function is_big_list(i, t)
  local sum = 0
  for j = 1, #t do
    sum = sum + t[j]
  end
  return sum == 100000.0 * i + 0.25 * 99999 * 100000
end

local function call(n)
  local began, sum = now(), 0
  for i = 1, n do
    sum = sum + fork_map(function() return { x = i * 10 } end).x
  end
  local time = now() - began
  check(sum == n * (n + 1) * 5)
  print_figure(NAME, time / n * 1e6, "us/call")
end

local function call_with_heap(n, blocks)
  local heap = {}
  for i = 1, blocks do
    heap[i] = ("\1"):rep(64 << 20)
  end
  call(n)
  local report = fork_map.prepare()
  if report.bytes > 0 then
    NAME = "fork_map-prepared"
    call(n)
  end
  return #heap
end

local function tiny(i)
  return i * 1234
end

local N = 1000000

local function check_tiny(r)
  local sum = 0
  for i = 1, N do
    sum = sum + r[i]
  end
  check(sum == 1234 * N * (N + 1) // 2)
end

local function each_tiny()
  if not ONLY or ONLY == "lua5.4-loop" then
    local began, r = now(), {}
    for i = 1, N do
      r[i] = tiny(i)
    end
    print_figure("lua5.4-loop", N / (now() - began), "items/s")
    check(#r == N)
  end
  for _, codec in ipairs { "auto", "lua" } do
    local name = codec == "auto" and NAME or NAME .. "-lua-codec"
    collectgarbage()
    local began = now()
    local r = fork_map.map(N, tiny, { workers = 2, codec = codec })
    print_figure(name, N / (now() - began), "items/s")
    check_tiny(r)
  end
end

-- Efficiency of two processors.
local function share(n, fn)
  local began, sum = now(), 0
  for i = 1, n do
    sum = sum + fn(i)
  end
  local alone = now() - began
  began = now()
  local r = fork_map.map(n, fn, { workers = 2 })
  local time = now() - began
  for i = 1, n do
    sum = sum - r[i]
  end
  check(sum == 0)
  print_figure(NAME, alone / (2 * time), "efficiency")
end

local function big(make, is_right, megabytes)
  if not ONLY or ONLY == "lua5.4-serial" then
    local began, r = now(), {}
    for i = 0, 63 do
      r[i] = make(i)
    end
    print_figure("lua5.4-serial", 64 * megabytes / (now() - began), "MB/s")
    check(r[0] and #r == 63)
  end
  if ONLY and ONLY ~= NAME then
    return
  end
  collectgarbage()
  local began = now()
  local r = fork_map.map(64, function(k)
    return make(k - 1)
  end, { workers = 2, codec = "lua" })
  local time = now() - began
  for k = 1, 64 do
    check(is_right(k - 1, r[k]))
  end
  print_figure(NAME, 64 * megabytes / time, "MB/s")
end

local function each_apart()
  local n = 5000
  local began = now()
  local r = fork_map.map(n, tiny, { workers = 2, isolate = "item" })
  local time = now() - began
  local sum = 0
  for i = 1, n do
    sum = sum + r[i]
  end
  check(sum == 1234 * n * (n + 1) // 2)
  print_figure(NAME, n / time, "items/s")
end

local WORKLOADS = {
  W1 = function() call(2000) end,
  W2a = function() call_with_heap(200, 16) end,
  W2b = function() call_with_heap(20, 64) end,
  W3 = each_tiny,
  W4 = function()
    share(2000, function(i) return work(i, ITERS) end)
  end,
  W5 = function()
    share(200, function(i) return work(i, ITERS // 10 * i) end)
  end,
  W6s = function() big(big_string, is_big_string, 4.194304) end,
  W6d = function() big(big_list, is_big_list, 0.8) end,
  W7 = each_apart,
}

local run = WORKLOADS[workload]
if not run then
  io.stderr:write(("bench/peer.lua: no workload %s\n"):format(tostring(workload)))
  os.exit(1)
end
for _ = 1, reps do
  run()
  collectgarbage()
end
