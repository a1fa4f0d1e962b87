-- SPDX-License-Identifier: MIT
--
-- What processes cost that a template forks, and how little they care for the size of
-- the host.
--
--   lua5.4 bench/templates.lua [ROUNDS [write]]   (bench/run builds what it needs)
--
-- With "write" the figures go into RESULTS.md too.  Each row alternates its
-- candidates within every round; figures are ratios to the first: of speeds, or of
-- times.  The host of 4 GiB is left out where there is no memory for it.

local floor = require "floor"
floor.forkserver(1, 2) -- while this process is small

local fork_map = require "fork_map"
local page = require "page"
local rows = require "rows"

local row, finish, ROUNDS = rows.begin "templates.lua"

local function nothing() end

-- ---------------------------------------------------------------- processes

local template = fork_map.template { from = "exec" }
local original = fork_map.template { from = "exec" } -- of those that run()
template:wait()

local function spawn_each(n)
  for _ = 1, n do
    template:spawn(nothing):await()
  end
end

local function spawn_all(n)
  local futures = {}
  for i = 1, n do
    futures[i] = template:spawn(nothing)
  end
  for i = 1, n do
    futures[i]:await()
  end
end

-- Templates of their own, each of which ends with a function's end.
local function run_each(n)
  for _ = 1, n do
    local channel = original:fork():run(nothing)
    assert(select(3, channel:recv()) == "EOF")
    channel:close()
  end
end

local function servers(k)
  return function(n)
    floor.forkserver(n, k)
  end
end

local W8 = {
  { "a fork server in C", servers(1) },
  { "two at once", servers(2) },
  { "socketpair and fork in C", floor.sockets },
  { "template:spawn(fn):await()", spawn_each },
  { "template:spawn(fn), all, then await all", spawn_all },
  { "template:fork():run(fn), to the channel's end", run_each },
}
if rows.has "perl -MAnyEvent::Fork -e1" then
  W8[#W8 + 1] = { "AnyEvent::Fork, one after the other", rows.program "perl bench/anyevent.pl 1" }
  W8[#W8 + 1] = { "AnyEvent::Fork, four at once", rows.program "perl bench/anyevent.pl 4" }
end
row("W8, 1,000 processes from a template: speed", ROUNDS, 1000, W8, { figure = rows.speed })

-- ------------------------------------------------------------- big hosts

local function echo(value)
  return { x = value * 10 }
end

local function call_template(n)
  for i = 1, n do
    assert(template:spawn(echo, i):await().x == i * 10)
  end
end

local function call_directly(n)
  for i = 1, n do
    assert(fork_map(echo, i).x == i * 10)
  end
end

-- What takes long is called less often, and its time is that of n calls.
local function less(fn, divisor)
  return function(n)
    local few = n // divisor
    local began = floor.now()
    fn(few)
    return (floor.now() - began) * n / few
  end
end

-- Bytes of memory that can be had.
local function free_memory()
  return tonumber(page.read("/proc/meminfo"):match("MemAvailable:%s*(%d+)")) << 10
end

local RESERVE = 2 << 30
local BLOCK = 2 << 20
local heap = {}

-- Fill this process up to so many bytes: false where there is no room.  Blocks that
-- are this small are no huge pages by themselves.
local function grow(size)
  if size - #heap * BLOCK + RESERVE > free_memory() then
    return false
  end
  while #heap * BLOCK < size do
    heap[#heap + 1] = string.char(#heap % 256):rep(BLOCK - 64)
  end
  collectgarbage()
  return true
end

for _, host in ipairs {
  { "10 MB", 10 << 20, 1 }, { "1 GiB", 1 << 30, 20 }, { "4 GiB", 4 << 30, 50 },
} do
  local name, size, divisor = table.unpack(host)
  if grow(size) then
    row(("one call in a host of %s: time"):format(name), ROUNDS, 200, {
      { "a fork server in C, which is small", servers(1) },
      { "template:spawn(fn, i):await()", call_template },
      { "fork_map(fn, i)", less(call_directly, divisor) },
    })
  else
    io.write(("no room for a host of %s\n"):format(name))
  end
end

finish()
