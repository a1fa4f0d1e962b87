-- SPDX-License-Identifier: MIT
--
-- What a map costs, beside the plain loop, bare forks and a raw pipe, and what
-- each of its options adds.
--
--   lua5.4 bench/maps.lua [ROUNDS [write]]     (bench/run builds what it needs)
--
-- With "write" the figures go into RESULTS.md too.
--
-- Each row alternates its candidates within every round; figures are ratios to
-- the first: speeds (more is better) where it says so, else times.

local fork_map = require "fork_map"
local floor = require "floor"
local rows = require "rows"

local row, finish, ROUNDS = rows.begin "maps.lua"

local WORKERS = 2

-- Options over those of every map here.
local function opts(more)
  local all = { workers = WORKERS }
  for name, value in pairs(more or {}) do
    all[name] = value
  end
  return all
end

local SPEED = { figure = rows.speed, collects = true }
local TIME = { collects = true }
local EFFICIENCY = { figure = rows.efficiency(WORKERS), collects = true }

local function tiny(i)
  return i * 1234
end

local function mapped(list, fn, more)
  local with = opts(more)
  return function(n)
    local r = fork_map.map(list or n, fn, with)
    assert(r.n == n and r[n] == fn(n))
  end
end

local function looped(fn)
  return function(n)
    local r = {}
    for i = 1, n do
      r[i] = fn(i)
    end
    assert(#r == n)
  end
end

-- Lehmer's generator, a fixed amount of interpreter work.
local function work(x, n)
  for _ = 1, n do
    x = x * 16807 % 2147483647
  end
  return x
end

-- Iterations that take about a millisecond here.
local function calibrate()
  local best = math.huge
  for _ = 1, 5 do
    local began = floor.now()
    work(1, 100000)
    best = math.min(best, floor.now() - began)
  end
  return math.floor(100000 * 1000 / best)
end

local ITERS = calibrate()

-- ------------------------------------------------- a process for each item

-- First, as whoever forks a host that has grown pays for its pages.
row("W7, 1,000 items, each in a process of its own: speed", ROUNDS, 1000, {
  {"two masters in C that fork", function(n)
    assert(floor.masters(n) == n * (n + 1) * 5)
  end},
  {"map, isolate = \"item\"", mapped(nil, tiny, {isolate = "item"})},
  {"one master in C", function(n)
    for i = 1, n do
      floor.raw(i)
    end
  end},
  {"fork_map, one call after the other", function(n)
    for i = 1, n do
      fork_map(tiny, i)
    end
  end},
}, SPEED)

-- ------------------------------------------------------------- tiny items

local MILLION = 1000000
local numbers = {}
for i = 1, MILLION do
  numbers[i] = i
end

row("W3, a million tiny items: speed", ROUNDS, MILLION, {
  {"plain loop", looped(tiny)},
  {"map, 2 workers, codec = \"lua\"", mapped(nil, tiny, {codec = "lua"})},
  {"map, 2 workers", mapped(nil, tiny)},
  {"map, 2 workers, a list", mapped(numbers, tiny)},
  {"map, 1 worker", mapped(nil, tiny, {workers = 1})},
}, SPEED)

row("without a process, 20,000 tiny items: time", ROUNDS, 20000, {
  {"map, 1 worker", mapped(nil, tiny, {workers = 1})},
  {"map, workers = 0", mapped(nil, tiny, {workers = 0})},
}, TIME)

local function imapped(verb, more)
  local with = opts(more)
  return function(n)
    local count = 0
    for i, value in verb(n, tiny, with) do
      count = count + 1
      assert(value == i * 1234)
    end
    assert(count == n)
  end
end

local function add(a, b)
  return a + b
end

row("the other verbs, a million tiny items: time", ROUNDS, MILLION, {
  {"map", mapped(nil, tiny)},
  {"imap", imapped(fork_map.imap)},
  {"imap_unordered", imapped(fork_map.imap_unordered)},
  {"each", function(n) assert(fork_map.each(n, tiny, opts()) == n) end},
  {"find, no match", function(n)
    assert(fork_map.find(n, function(i) return i < 0 end, opts()) == nil)
  end},
  {"reduce", function(n)
    assert(fork_map.reduce(n, add, add, 0, opts()) == n * (n + 1) // 2)
  end},
}, TIME)
numbers = nil -- luacheck: ignore 311

-- ------------------------------------------------------------- sources

-- The loop over what imap gives; `items` makes a list or an iterator.
local function streamed(items, fn, more)
  local with = opts(more)
  return function(n)
    local count = 0
    for _ in fork_map.imap(items(n), fn, with) do
      count = count + 1
    end
    assert(count == n)
  end
end

local function short(i)
  return work(i, ITERS // 50)
end

for _, what in ipairs {
  {"100,000 integers", 100000, function(i) return i end, tiny},
  {"100,000 items {x = …, y = …}", 100000, function(i) return {x = i, y = -i} end,
    function(item) return tiny(item.x) end},
  {"5,000 items of 0.02 ms", 5000, function(i) return i end, short},
} do
  local make, fn = what[3], what[4]
  local list = {}
  for i = 1, what[2] do
    list[i] = make(i)
  end
  local function listed()
    return list
  end
  local function iterated(n)
    local i = 0
    return function()
      i = i + 1
      return i <= n and make(i) or nil
    end
  end
  row(("a list or an iterator, %s: time"):format(what[1]), ROUNDS, what[2], {
    {"imap, a list", streamed(listed, fn)},
    {"imap, a list, codec = \"lua\"", streamed(listed, fn, {codec = "lua"})},
    {"imap, an iterator", streamed(iterated, fn)},
    {"imap, an iterator, codec = \"lua\"", streamed(iterated, fn, {codec = "lua"})},
    {"plain loop over the list", function(n)
      local r = {}
      for i = 1, n do
        r[i] = fn(list[i])
      end
      assert(#r == n)
    end},
  }, TIME)
end

-- ------------------------------------------------------------- options

local function with_journal(list, fn)
  local name = os.tmpname()
  return function(n)
    os.remove(name)
    mapped(list, fn, {journal = name})(n)
    os.remove(name)
  end
end

local function ignore() end

for _, what in ipairs {
  {"what options cost, 100,000 tiny items: time", tiny, 100000},
  {"what options cost, 5,000 items of 0.02 ms: time", short, 5000},
} do
  local fn = what[2]
  row(what[1], ROUNDS, what[3], {
    {"map", mapped(nil, fn)},
    {"timeout = 10", mapped(nil, fn, {timeout = 10})},
    {"on_error = \"collect\", retries = 3", mapped(nil, fn, {on_error = "collect", retries = 3})},
    {"seed = 1", mapped(nil, fn, {seed = 1})},
    {"chunk = 16", mapped(nil, fn, {chunk = 16})},
    {"isolate = \"chunk\"", mapped(nil, fn, {isolate = "chunk"})},
    {"max_tasks = 1000", mapped(nil, fn, {max_tasks = 1000})},
    {"progress = fn", mapped(nil, fn, {progress = ignore})},
    {"deadline = 60", mapped(nil, fn, {deadline = 60})},
    {"journal", with_journal(nil, fn)},
  }, TIME)
end

-- ------------------------------------------------------- what comes back

local SHAPES = {
  {"an integer", tiny},
  {"a float", function(i) return i / 7 end},
  {"a string of 20", function(i) return ("%020d"):format(i) end},
  {"{x = …, y = …}", function(i) return {x = i, y = -i} end},
}

for _, shape in ipairs(SHAPES) do
  local fn = shape[2]
  local function check(more)
    local with = opts(more)
    return function(n)
      assert(fork_map.map(n, fn, with).n == n)
    end
  end
  row(("100,000 items that return %s: speed"):format(shape[1]), ROUNDS, 100000, {
    {"plain loop", looped(fn)},
    {"map, codec = \"lua\"", check {codec = "lua"}},
    {"map", check()},
  }, SPEED)
end

-- ------------------------------------------------------------ real work

local function even(i)
  return work(i, ITERS)
end

local function growing(i)
  return work(i, ITERS // 10 * i)
end

-- Every second item in each of two bare forks: what the machine has to give.
local function halved(fn)
  return function(n)
    floor.split(function(first)
      for i = first, n, 2 do
        fn(i)
      end
    end)
  end
end

for _, what in ipairs {
  {"W4, 400 items of 1 ms: efficiency of two processors", even, 400},
  {"W5, 100 items of 0.1 to 10 ms, growing: efficiency", growing, 100},
} do
  row(what[1], ROUNDS, what[3], {
    {"plain loop, on one", looped(what[2])},
    {"two bare forks, every second item", halved(what[2])},
    {"map", mapped(nil, what[2])},
    {"map, chunk = 1", mapped(nil, what[2], {chunk = 1})},
  }, EFFICIENCY)
end

-- --------------------------------------------------------- big results

local TEXT = 4 << 20

local function text_of(i)
  return string.char(65 + i % 26):rep(4096):rep(TEXT // 4096)
end

row("W6s, 32 strings of 4 MB: speed", ROUNDS, 32, {
  {"two bare forks in C, raw pipes", function(n) floor.texts(n, TEXT) end},
  {"map, codec = \"lua\"", mapped(nil, text_of, {codec = "lua"})},
  {"map", mapped(nil, text_of)},
  {"plain loop", looped(text_of)},
}, SPEED)

local function list_of(i)
  local t = {}
  for j = 0, 99999 do
    t[j + 1] = i + 0.5 * j
  end
  return t
end

local function lists(more)
  local with = opts(more)
  return function(n)
    local r = fork_map.map(n, list_of, with)
    assert(#r[n] == 100000 and r[n][3] == n + 1.0)
  end
end

row("W6d, 32 lists of 100,000 floats: speed", ROUNDS, 32, {
  {"plain loop", looped(list_of)},
  {"map, codec = \"lua\"", lists {codec = "lua"}},
  {"map", lists()},
}, SPEED)

finish()
