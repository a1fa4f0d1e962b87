-- SPDX-License-Identifier: MIT
--
-- What futures, an engine's step and a task's switch cost.
--
--   lua5.4 bench/futures.lua [ROUNDS [write]]     (bench/run builds what it needs)
--
-- With "write" the figures go into RESULTS.md too.  Each row alternates its
-- candidates within every round; figures are ratios to the first, of times.

local fork_map = require "fork_map"
local floor = require "floor"
local rows = require "rows"

local row, finish, ROUNDS = rows.begin "futures.lua"

local function nothing() end

-- --------------------------------------------------------------- calls

local function call(n)
  for _ = 1, n do
    fork_map(nothing)
  end
end

local function spawn_and_await(n)
  for _ = 1, n do
    fork_map.spawn(nothing):await()
  end
end

local function spawn_all(n)
  local futures = {}
  for i = 1, n do
    futures[i] = fork_map.spawn(nothing)
  end
  for i = 1, n do
    futures[i]:await()
  end
end

local function call_in_task(n)
  fork_map.run(call, n)
end

row("one call after the other: time", 5 * ROUNDS, 40, {
  { "fork_map(fn)", call },
  { "spawn(fn):await()", spawn_and_await },
  { "fork_map(fn) in a task", call_in_task },
})

local many = {
  { "fork_map(fn), one after the other", call },
  { "spawn all, then await all", spawn_all },
}
if rows.has "python3 -c 'import concurrent.futures'" then
  many[#many + 1] = { "Python, a warm pool of 2", rows.program "python3 bench/pool.py" }
end
if rows.has "lua5.4 -e 'require \"luv\"'" then
  many[#many + 1] = { "luv, uv.spawn of /bin/true", rows.program "lua5.4 bench/uv.lua" }
end
row("10,000 calls that do nothing: time", ROUNDS, 10000, many)

-- ---------------------------------------------------------------- steps

local STEPS = 100000

local idle <close> = fork_map.new()
local crowded <close> = fork_map.new { max_children = 16, grace = 0 }

local function step(engine)
  return function(n)
    for _ = 1, n do
      engine:step(0)
    end
  end
end

local function call_empty(n)
  for _ = 1, n do
    nothing()
  end
end

local function read_clock(n)
  local now = floor.now
  for _ = 1, n do
    now()
  end
end

for _ = 1, 1000 do
  crowded:spawn(os.execute, "exec sleep 1000"):detach()
end
crowded:step(0.1)

row("100,000 steps that find nothing: time", ROUNDS, STEPS, {
  { "a clock that C reads", read_clock },
  { "an empty Lua function", call_empty },
  { "engine:step(0), nothing alive", step(idle) },
  { "engine:step(0), 1,000 in flight", step(crowded) },
})
crowded:close()

local began = floor.now()
step(idle)(STEPS)
io.write(("  %-34s %s\n"):format("an idle step(0) under 1 µs",
  (floor.now() - began) / STEPS < 1 and "yes" or "no"))

-- --------------------------------------------------------------- switches

local SWITCHES = 20000

local function switch(n)
  local co = coroutine.wrap(function()
    while true do
      coroutine.yield()
    end
  end)
  for _ = 1, n do
    co()
  end
end

local function make_coroutines(n)
  for _ = 1, n do
    coroutine.wrap(nothing)()
  end
end

local function in_task(body)
  return function(n)
    fork_map.run(body, n)
  end
end

local function yield(n)
  for _ = 1, n do
    fork_map.yield()
  end
end

local function await_settled(n)
  local f = fork_map.task(nothing)
  f:await()
  for _ = 1, n do
    f:await()
  end
end

-- One task each, that ends while it is awaited.
local function await_tasks(n)
  for _ = 1, n do
    fork_map.task(nothing):await()
  end
end

row("20,000 switches of a coroutine: time", ROUNDS, SWITCHES, {
  { "resume and yield, bare", switch },
  { "create and resume a coroutine, bare", make_coroutines },
  { "await a settled future", in_task(await_settled) },
  { "yield() of a task", in_task(yield) },
  { "await a new task", in_task(await_tasks) },
})

finish()
