-- SPDX-License-Identifier: MIT
--
-- How long faults take to be noticed, against the bounds that are promised.
--
--   lua5.4 bench/reliability.lua [ROUNDS]     (bench/reliability.sh sets the paths)
--
-- Rows that have something to be compared with alternate with it in every round
-- (A B A B ...).  The last line is "N bounds, N exceeded".

local core = require "fork_map.core"
local fork_map = require "fork_map"
local sys = require "specs_core"

local rounds = math.max(20, tonumber(arg[1] or 200))
local CHILDREN = 32

local checked, exceeded = 0, 0

local function quantile(times, q)
  table.sort(times)
  return times[math.max(1, math.ceil(#times * q))]
end

-- Print a row; `bound` is for the 99th percentile, absent when it is the row
-- to compare with.
local function tell(name, times, bound)
  local p50, p99 = quantile(times, 0.5), quantile(times, 0.99)
  local verdict = ""
  if bound then
    checked = checked + 1
    exceeded = exceeded + (p99 > bound and 1 or 0)
    verdict = ("  bound %.0f ms: %s"):format(bound * 1e3, p99 > bound and "EXCEEDED" or "held")
  end
  print(("%-58s p50 %7.2f ms  p99 %7.2f ms%s"):format(name, p50 * 1e3, p99 * 1e3, verdict))
end

local function start(engine, opts, fn, ...)
  local future = core.future(engine.core, core.options(opts))
  core.start(future, fn, ...)
  return future
end

local function settle(future)
  while not core.wait(future) do end
  return sys.now()
end

-- Start `fn` and return when it runs: it writes a byte to the descriptor that
-- it is given.
local function start_running(engine, opts, fn)
  local reader, writer = sys.pipe()
  local future = start(engine, opts, fn, writer)
  sys.close(writer)
  core.engine_step(engine.core, 0)
  sys.read(reader)
  sys.close(reader)
  return future
end

local function hold(writer)
  sys.write(writer, "x")
  sys.close(writer)
  sys.sleep(100)
end

local function hold_deaf(writer)
  sys.handle(15, "ignore")
  hold(writer)
end

local function spin(writer)
  sys.write(writer, "x")
  sys.close(writer)
  while true do end
end

-- ------------------------------------------------------------------- death

-- A process of its own kills `pid` soon, and tells when, by the clock that all
-- processes share.
local function kill_soon(pid)
  local reader, writer = sys.pipe()
  local killer = sys.fork_once()
  if killer == 0 then
    sys.sleep(0.003)
    sys.write(writer, string.pack("n", sys.now()))
    sys.kill(pid, 9)
    sys.quick_exit(0)
  end
  sys.close(writer)
  return function()
    local at = string.unpack("n", sys.read(reader))
    sys.close(reader)
    sys.wait(killer)
    return at
  end
end

local function death(engine, fn)
  local future = start_running(engine, {}, fn)
  local killed_at = kill_soon(core.pid(future))
  local seen = settle(future)
  assert(not pcall(core.result, future))
  return seen - killed_at()
end

local function plain_death()
  local pid = sys.fork_and_hold()
  local killed_at = kill_soon(pid)
  sys.wait(pid)
  return sys.now() - killed_at()
end

local function hold_with_grandchild(writer)
  sys.fork_and_hold()
  hold(writer)
end

local function measure_death()
  local engine <close> = fork_map.new {}
  local plain, ours, grand = {}, {}, {}
  for i = 1, rounds do
    plain[i] = plain_death()
    ours[i] = death(engine, hold)
    grand[i] = death(engine, hold_with_grandchild)
  end
  tell("death of a child to the end of a bare waitpid()", plain)
  tell("death of a child to its error", ours, 0.05)
  tell("  the same with a grandchild that holds its descriptors", grand, 0.05)
end

-- --------------------------------------------------------------- deadlines

local function overshoot(engine, fn, deaf)
  local timeout, grace = 0.05, 0.02
  local began = sys.now()
  local future = start(engine, { timeout = timeout, grace = grace }, function()
    return fn(2)
  end)
  local took = settle(future) - began
  local _, err = pcall(core.result, future)
  assert(err.kind == "timeout")
  return took - timeout - (deaf and grace or 0)
end

local function quiet(fn)
  return function()
    local _, writer = sys.pipe()
    return fn(writer)
  end
end

local function measure_deadlines()
  local engine <close> = fork_map.new {}
  local sleeping, spinning, deaf = {}, {}, {}
  for i = 1, rounds do
    sleeping[i] = overshoot(engine, quiet(hold))
    spinning[i] = overshoot(engine, quiet(spin))
    deaf[i] = overshoot(engine, quiet(hold_deaf), true)
  end
  tell("overshoot of a timeout, sleeping child", sleeping, 0.05)
  tell("overshoot of a timeout, busy child", spinning, 0.05)
  tell("overshoot of timeout and grace, child ignores SIGTERM", deaf, 0.05)
end

-- -------------------------------------------------------------- many at once

local function start_many(engine, fn)
  local futures = {}
  for i = 1, CHILDREN do
    futures[i] = start_running(engine, { grace = 0.2 }, fn)
  end
  return futures
end

local function measure_close(name, fn, grace)
  local times = {}
  for i = 1, rounds // 20 do
    local engine = fork_map.new { max_children = CHILDREN }
    local futures = start_many(engine, fn)
    local began = sys.now()
    engine:close()
    times[i] = sys.now() - began
    for _, future in ipairs(futures) do
      local _, err = pcall(core.result, future)
      assert(err.kind == "closed")
    end
  end
  tell(name, times, grace + 0.5)
end

-- The time from the death of a host until the last of its children, which hold
-- the pipe, is gone.
local function host_death()
  local reader, writer = sys.pipe()
  local ready_reader, ready_writer = sys.pipe()
  local host = sys.fork_once()
  if host == 0 then
    local engine = fork_map.new { max_children = CHILDREN }
    start_many(engine, spin)
    sys.write(ready_writer, "x")
    sys.sleep(100)
  end
  sys.close(writer)
  sys.read(ready_reader)
  local began = sys.now()
  sys.kill(host, 9)
  assert(sys.read(reader) == "")
  local took = sys.now() - began
  sys.wait(host)
  for _, fd in ipairs { reader, ready_reader, ready_writer } do
    sys.close(fd)
  end
  return took
end

local function measure_host_death()
  local times = {}
  for i = 1, rounds // 20 do
    times[i] = host_death()
  end
  tell(("death of the host to the end of %d busy children"):format(CHILDREN), times, 1)
end

measure_death()
measure_deadlines()
measure_close(("close with %d busy children"):format(CHILDREN), spin, 0.2)
measure_close(("close with %d children that ignore SIGTERM"):format(CHILDREN), hold_deaf, 0.2)
measure_host_death()
print(("%d bounds, %d exceeded"):format(checked, exceeded))
os.exit(exceeded == 0)
