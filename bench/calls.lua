-- SPDX-License-Identifier: MIT
--
-- What one call costs, beside the smallest fork that could do it.
--
--   lua5.4 bench/calls.lua [ROUNDS]     (bench/run builds what it needs)
--
-- Each row alternates its candidates within every round (A B C A B C ...) and
-- gives the median of the rounds' ratios to the first of them.

local fork_map = require "fork_map"
local floor = require "floor"

local rounds = tonumber(arg[1] or 9)

local function median(list)
  table.sort(list)
  local n = #list
  return n % 2 == 1 and list[n // 2 + 1] or (list[n // 2] + list[n // 2 + 1]) / 2
end

---One row: candidates are {name, function(n)}; `n` calls per round each.
local function row(title, n, candidates)
  local ratios = {}
  for i = 1, #candidates do
    candidates[i][2](math.max(1, n // 10)) -- warm
    ratios[i] = {}
  end
  for r = 1, rounds do
    local times = {}
    for i, candidate in ipairs(candidates) do
      local t = floor.now()
      candidate[2](n)
      times[i] = floor.now() - t
    end
    for i = 1, #candidates do
      ratios[i][r] = times[i] / times[1]
    end
  end
  io.write(title, "\n")
  for i, candidate in ipairs(candidates) do
    local list = ratios[i]
    local mid = median(list)
    io.write(("  %-34s %6.2f   (%.2f to %.2f)\n"):format(candidate[1], mid, list[1], list[#list]))
  end
end

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

row("W1, one call that returns a small table, small host", 500, {
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

row("a 64 MB string as result", 1, {
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

row("100,000 doubles as result", 5, {
  {"copied once in this process", in_process(doubles)},
  {"fork_map", returns(fork_map, doubles)},
  {"fork_map, codec = \"lua\"", returns(binary, doubles)},
})
doubles = nil -- luacheck: ignore 311

for _, megabytes in ipairs {200, 1000} do
  local heap = {} -- luacheck: ignore 241
  for i = 1, megabytes * 8192 do
    heap[i] = {i} -- about 128 bytes with its slot
  end
  row(("W1 in a host of %d MB of small tables"):format(collectgarbage "count" // 1024), 5, {
    {"minimal Lua+C fork", minimal},
    {"raw C fork", raw},
    {"fork_map", engine},
  })
  if megabytes == 1000 then
    local report = fork_map.prepare()
    io.write(("  one fork after prepare(), of before    %.3f\n"):format(
      report.after / report.before))
    row("W1 in the same host after prepare()", 20, {
      {"minimal Lua+C fork", minimal},
      {"fork_map", engine},
    })
  end
  heap = nil -- luacheck: ignore 311
  collectgarbage()
end

floor.open(1000)
row("W1 with 1,000 inherited descriptors", 200, {
  {"minimal Lua+C fork", minimal},
  {"raw C fork", raw},
  {"fork_map", engine},
  {"fork_map, keep_fds = {}", through(strict)},
})
