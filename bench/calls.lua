-- SPDX-License-Identifier: MIT
--
-- What one call costs, beside the smallest fork that could do it.
--
--   lua5.4 bench/calls.lua [ROUNDS]     (bench/run builds what it needs)
--
-- Each row alternates its candidates within every round (A B C A B C ...) and
-- gives the median and the middle half of the rounds' ratios to the first.

local fork_map = require "fork_map"
local floor = require "floor"
local rows = require "rows"

local rounds = math.max(7, tonumber(arg[1] or 9))

-- A single call takes so little that other work on the machine shows in every
-- turn of many: short turns and many rounds leave it out.
local CALLS, CALL_ROUNDS = 40, 5 * rounds

local function times_ten(i)
  return {x = i * 10}
end

local function raw(n)
  for i = 1, n do
    assert(floor.raw(i) == i * 10)
  end
end

local function minimal(n)
  for i = 1, n do
    assert(floor.lua(times_ten, i).x == i * 10)
  end
end

local function engine(n)
  for i = 1, n do
    assert(fork_map(times_ten, i).x == i * 10)
  end
end

local strict = fork_map.with {keep_fds = {}}
local timed = fork_map.with {timeout = 10, limits = {cpu = 10}}
local binary = fork_map.with {codec = "lua"}

local function through(view)
  return function(n)
    for i = 1, n do
      assert(view(times_ten, i).x == i * 10)
    end
  end
end

rows.row("W1, one call that returns a small table, small host", CALL_ROUNDS, CALLS, {
  {"minimal Lua+C fork", minimal},
  {"raw C fork", raw},
  {"fork_map", engine},
  {"fork_map, codec = \"lua\"", through(binary)},
  {"fork_map, timeout and cpu limit", through(timed)},
  {"fork_map, keep_fds = {}", through(strict)},
})

local text = ("x"):rep(64 << 20)
local doubles = {}
for i = 1, 100000 do
  doubles[i] = i / 7
end
local function in_process(value)
  return function(n)
    for _ = 1, n do
      local copy = type(value) == "string" and (value .. "y") or table.move(value, 1, #value, 1, {})
      assert(#copy >= #value)
    end
  end
end
local function returns(view, value)
  local function fn()
    return value
  end
  return function(n)
    for _ = 1, n do
      assert(#view(fn) == #value)
    end
  end
end

rows.row("a 64 MB string as result", rounds, 1, {
  {"raw C fork, pipe, lua_pushlstring", function(n)
    for _ = 1, n do
      assert(#floor.text(text) == #text)
    end
  end},
  {"copied once in this process", in_process(text)},
  {"fork_map", returns(fork_map, text)},
  {"fork_map, codec = \"lua\"", returns(binary, text)},
})
text = nil -- luacheck: ignore 311

rows.row("100,000 doubles as result", rounds, 5, {
  {"copied once in this process", in_process(doubles)},
  {"fork_map", returns(fork_map, doubles)},
  {"fork_map, codec = \"lua\"", returns(binary, doubles)},
})
doubles = nil -- luacheck: ignore 311

floor.open(1000)
rows.row("W1 with 1,000 inherited descriptors", CALL_ROUNDS, CALLS, {
  {"minimal Lua+C fork", minimal},
  {"raw C fork", raw},
  {"fork_map", engine},
  {"fork_map, keep_fds = {}", through(strict)},
})

---A heap of small tables of about so many megabytes.
local function fill(megabytes)
  local heap = {}
  collectgarbage()
  local want = collectgarbage "count" + megabytes * 1024
  while collectgarbage "count" < want do
    for _ = 1, 10000 do
      heap[#heap + 1] = {#heap}
    end
  end
  return heap
end

for _, megabytes in ipairs {200, 1000} do
  local heap = fill(megabytes)
  rows.row(("W1 in a host of %d MB of small tables"):format(megabytes), rounds, 5, {
    {"minimal Lua+C fork", minimal},
    {"raw C fork", raw},
    {"fork_map", engine},
  })
  if megabytes == 1000 then
    local report = fork_map.prepare()
    io.write(("  %-34s %6.2f\n"):format("one fork after prepare(), of before",
      report.after / report.before))
    rows.row("W1 in the same host after prepare()", rounds, 5, {
      {"minimal Lua+C fork", minimal},
      {"fork_map", engine},
    })
  end
  assert(#heap > 0)
end
