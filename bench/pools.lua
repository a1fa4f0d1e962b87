-- SPDX-License-Identifier: MIT
--
-- What calls of warm workers cost.
--
--   lua5.4 bench/pools.lua [ROUNDS [write]]       (bench/run builds what it needs)
--
-- With "write" the figures go into RESULTS.md too.  Each row alternates its
-- candidates within every round; figures are ratios to the first, of times.

local fork_map = require "fork_map"
local floor = require "floor"
local rows = require "rows"

local row, finish, ROUNDS = rows.begin "pools.lua"

local function echo(value)
  return value
end

local has_python = rows.has "python3 -c 'import multiprocessing'"

local function with_python(kind, candidates)
  if has_python then
    local command = "python3 bench/pool_apply.py " .. kind
    candidates[#candidates + 1] = { "Python, multiprocessing.Pool", rows.program(command) }
  end
  return candidates
end

-- Candidates that use a pool of two, which is warm.
local function in_pool(opts, body)
  return function(n)
    opts.min, opts.max = 2, 2
    local pool <close> = fork_map.pool(echo, opts)
    for _ = 1, 50 do
      pool:call(1)
    end
    local began = floor.now()
    body(pool, n)
    return floor.now() - began
  end
end

local function call_each(value)
  return function(pool, n)
    for _ = 1, n do
      pool:call(value)
    end
  end
end

local function submit_all(pool, n)
  local futures = {}
  for i = 1, n do
    futures[i] = pool:submit(i)
  end
  for i = 1, n do
    futures[i]:await()
  end
end

local function fork_each(n)
  for i = 1, n do
    fork_map(echo, i)
  end
end

row("one call after the other: time", ROUNDS, 2000, with_python("trip", {
  { "pool:call(1)", in_pool({}, call_each(1)) },
  { "fork_map(fn, 1)", fork_each },
}))

row("10,000 calls, all submitted first: time", ROUNDS, 10000, with_python("many", {
  { "load = 2", in_pool({}, submit_all) },
  { "load = 64", in_pool({ load = 64 }, submit_all) },
}))

local megabyte = ("x"):rep(1 << 20)

row("1 MB there and back: time", ROUNDS, 100, with_python("bytes", {
  { "pool:call(megabyte)", in_pool({}, call_each(megabyte)) },
}))

-- The best of some rounds, as others use this machine too.
local best = 0
for _ = 1, ROUNDS do
  best = math.max(best, 30000 / in_pool({ load = 64 }, submit_all)(30000) * 1e6)
end
io.write(("  %-34s %.0f\n"):format("small calls a second, load = 64", best))

finish()
