-- SPDX-License-Identifier: MIT
--
-- Many calls on several engines at once, while a nemesis kills and stops
-- children, cancels calls, takes descriptors away, closes engines and collects
-- garbage.  Every call has a known answer; each must come exactly once, and
-- afterwards nothing may be left.
--
--   lua5.4 spec/soak.lua [JOBS [SECONDS [SEED]]]
--
-- with the paths that spec/run sets: `sh spec/run dev --soak JOBS SECONDS`.
-- Ends after so many calls (2,000) or seconds (no limit), whatever is first.
-- The last line is "soak: N jobs, N wrong"; the status is 0 when none is wrong.

local core = require "fork_map.core"
local fork_map = require "fork_map"
local options = require "fork_map.options"
local process = require "support.process"
local soak_jobs = require "support.soak_jobs"
local sys = require "specs_core"

local total = math.tointeger(tonumber(arg[1] or 2000))
local seconds = tonumber(arg[2] or math.huge)
local seed = math.tointeger(tonumber(arg[3] or os.time()))

local ENGINES, WIDTH = 3, 18
local WARM_UP = 600
local HANG = 60 -- seconds that no call may take, whatever happens to it
local ZOMBIE = 1 -- seconds that a child may wait to be reaped

math.randomseed(seed)

local wrong, settled, next_id = 0, 0, 0
local active, engines, tally = {}, {}, {}

local function complain(text, ...)
  wrong = wrong + 1
  if wrong <= 20 then
    io.stderr:write("soak: ", text:format(...), "\n")
  end
end

-- ------------------------------------------------------------------- calls

local kinds, weights = soak_jobs.kinds, 0
for _, kind in ipairs(kinds) do
  kind.prepared = assert(options.prepare(assert(options.check_call(kind.opts or {}))))
  weights = weights + kind.weight
end

local function any_kind()
  local at = math.random(weights)
  for _, kind in ipairs(kinds) do
    at = at - kind.weight
    if at <= 0 then
      return kind
    end
  end
end

local function new_engine()
  return fork_map.new { max_children = math.random(3, 8) }
end

local function start_job(kind, slot)
  next_id = next_id + 1
  local job = { id = next_id, kind = kind, slot = slot, at = sys.now() }
  job.future = core.future(engines[slot].core, kind.prepared)
  core.start(job.future, kind.run, job.id)
  active[#active + 1] = job
  return job
end

local function describe(ok, first)
  if ok then
    return "value " .. tostring(first)
  end
  return ("%s: %s"):format(type(first) == "table" and first.kind or type(first), tostring(first))
end

-- Failures that the nemesis has caused and that are no answer of the job.
local function is_excused(job, ok, err)
  if ok or type(err) ~= "table" then
    return false
  end
  if job.is_starved and (err.kind == "spawn" or err.message:find("Too many open files")) then
    return true -- a child has the limit too
  end
  return err.kind == "closed" and job.is_closed
end

local function settle_job(job)
  local outcome = table.pack(pcall(core.result, job.future))
  local again = table.pack(pcall(core.result, job.future))
  settled = settled + 1
  local excused = is_excused(job, outcome[1], outcome[2])
  local result = outcome[1] and "value" or outcome[2].kind
  tally[result] = (tally[result] or 0) + 1
  if not excused and not job.kind.check(job.id, table.unpack(outcome, 1, outcome.n)) then
    complain("job %d, %s: %s", job.id, job.kind.name, describe(outcome[1], outcome[2]))
  end
  if result ~= (again[1] and "value" or again[2].kind) or outcome.n ~= again.n then
    complain("job %d, %s: a second outcome", job.id, job.kind.name)
  end
  soak_jobs.forget(job.id)
end

local function sweep()
  local now = sys.now()
  for i = #active, 1, -1 do
    local job = active[i]
    if core.settled(job.future) then
      settle_job(job)
    elseif now - job.at > HANG then
      complain("job %d, %s: no outcome after %d s", job.id, job.kind.name, HANG)
      core.cancel(job.future, 0)
      job.at = now
    end
    if core.settled(job.future) then
      active[i] = active[#active]
      active[#active] = nil
    end
  end
end

-- ----------------------------------------------------------------- nemesis

local stopped = {}

-- Wake those that have been stopped for so long.  A child may be stopped while
-- it starts, for which it has five seconds.
local function wake_stopped(least)
  local now = sys.now()
  for job, at in pairs(stopped) do
    local pid = core.pid(job.future)
    if pid and now - at >= least then
      sys.kill(pid, 18)
    end
    if not pid or now - at >= least then
      stopped[job] = nil
    end
  end
end

-- A process that core.pid() tells is not reaped yet, so its number is its own.
local function disturb(job)
  local pid = core.pid(job.future)
  local how = job.kind.disturb
  if how == "cancel" then
    core.cancel(job.future, math.random(0, 2) * 0.01)
  elseif pid and how == "kill" and math.random(3) == 1 then
    sys.kill(pid, 9)
  elseif pid and how == "stop" and not job.was_stopped then
    sys.kill(pid, 19)
    job.was_stopped = true
    stopped[job] = sys.now()
  end
end

local function close_engine()
  local slot = math.random(ENGINES)
  for _, job in ipairs(active) do
    job.is_closed = job.is_closed or job.slot == slot
  end
  engines[slot]:close()
  engines[slot] = new_engine()
end

-- Calls that start while only a few descriptors can be had.
local function starve()
  local fds, free = sys.fds(), 10
  while fds[free] do
    free = free + 1
  end
  sys.setrlimit("nofile", free + math.random(0, 3))
  for _, job in ipairs(active) do
    job.is_starved = true -- it may be started in this time, or once more
  end
  for _ = 1, 3 do
    start_job(kinds[1], math.random(ENGINES)).is_starved = true
  end
  for slot = 1, ENGINES do
    core.engine_step(engines[slot].core, 0)
  end
  sys.setrlimit("nofile", 1024)
end

local function interrupt()
  sys.kill(sys.getpid(), 10)
end

local tricks = {
  { chance = 3, act = interrupt },
  { chance = 5, act = starve },
  { chance = 4, act = close_engine },
  { chance = 1, act = collectgarbage },
}

local function torment()
  for _, job in ipairs(active) do
    if job.kind.disturb and math.random(4) == 1 then
      disturb(job)
    end
  end
  wake_stopped(0.05)
  for _, trick in ipairs(tricks) do
    if math.random(1000) <= trick.chance then
      trick.act()
    end
  end
end

-- ------------------------------------------------------------------- stock

local zombies = {}

-- A child that is a zombie twice, with more than ZOMBIE between, was forgotten.
local function watch_zombies()
  local now, seen = sys.now(), {}
  for _, pid in ipairs(process.children()) do
    if process.state(pid) == "Z" then
      seen[pid] = zombies[pid] or now
      if now - seen[pid] > ZOMBIE then
        complain("process %d is a zombie for %.1f s", pid, now - seen[pid])
      end
    end
  end
  zombies = seen
end

local function count(text, pattern)
  return select(2, text:gsub(pattern, ""))
end

local function take_stock()
  -- Lua's table of strings is as large as the most strings ever made it: now it
  -- is, before and after.  A collection halves it, where it is too large, once.
  for i = 1, 1 << 15 do
    local _ = "stock" .. i
  end
  for _ = 1, 8 do
    collectgarbage()
  end
  local n_fds = 0
  for _ in pairs(sys.fds()) do
    n_fds = n_fds + 1
  end
  local heap = sys.heap()
  local status = process.read_file("/proc/self/status")
  return {
    fds = n_fds,
    mappings = count(process.read_file("/proc/self/maps"), "\n"),
    children = #process.children(),
    threads = tonumber(status:match("Threads:%s*(%d+)")),
    heap = heap,
    rss = tonumber(status:match("RssAnon:%s*(%d+)")) * 1024,
  }
end

-- ------------------------------------------------------------------- loop

local function open_engines()
  for slot = 1, ENGINES do
    engines[slot] = new_engine()
  end
end

local function close_engines()
  wake_stopped(0)
  for slot = 1, ENGINES do
    engines[slot]:close()
    engines[slot] = nil
  end
end

-- Returns how many futures settled, or nothing was there to do.
local function step_all()
  local n = 0
  for slot = 1, ENGINES do
    n = n + (core.engine_step(engines[slot].core, 0) or 0)
  end
  if n == 0 then
    core.engine_step(engines[math.random(ENGINES)].core, 0.001)
  end
end

local function report(began, target)
  io.write(("%d of %d jobs, %d wrong, %.0f s\n"):format(settled, target, wrong,
    sys.now() - began))
  io.flush()
end

local function run(target, time)
  local began = sys.now()
  local told, looked = began, began
  settled, next_id = 0, 0
  open_engines()
  while next_id < target and sys.now() - began < time or #active > 0 do
    while #active < WIDTH and next_id < target and sys.now() - began < time do
      start_job(any_kind(), math.random(ENGINES))
    end
    step_all()
    sweep()
    torment()
    local now = sys.now()
    if now - looked > 0.5 then
      looked = now
      watch_zombies()
    end
    if now - told > 30 then
      told = now
      report(began, target)
    end
  end
  close_engines()
  if settled ~= next_id then
    complain("%d jobs and %d outcomes", next_id, settled)
  end
end

local function compare(before, after)
  for _, name in ipairs { "fds", "mappings", "children", "threads" } do
    if before[name] ~= after[name] and not (name == "mappings" and sys.sanitized) then
      complain("%s: %d before, %d after", name, before[name], after[name])
    end
  end
  local allowed = math.max(settled, 16000) * 1024 // 1000
  if after.heap - before.heap > allowed then
    complain("%d bytes of heap more than before", after.heap - before.heap)
  end
  if sys.wait_any() then
    complain("a child that nobody waited for")
  end
end

sys.handle(10, "nothing")
run(WARM_UP, seconds)
local before = take_stock()
tally = {}
run(total, seconds)
local after = take_stock()
compare(before, after)

for _, result in ipairs { "value", "error", "exit", "signal", "no_result", "timeout", "cancelled",
  "limit", "encode", "protocol", "spawn", "closed" } do
  io.write(("%10d %s\n"):format(tally[result] or 0, result))
end
io.write(("heap %+d bytes, resident %+d KiB\n"):format(after.heap - before.heap,
  (after.rss - before.rss) // 1024))
io.write(("soak: %d jobs, %d wrong (seed %d)\n"):format(settled, wrong, seed))
os.exit(wrong == 0)
