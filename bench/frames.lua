-- SPDX-License-Identifier: MIT
-- What a host with a loop of its own pays for each frame: the distribution of the
-- time of engine:step(0), with a hundred jobs in flight that are slow or that end,
-- and of the start of one, in a small host and in one of 200 MB.
--
--   lua5.4 bench/frames.lua [FRAMES]

local core = require "fork_map.core"
local fork_map = require "fork_map"

local FRAMES = math.tointeger(tonumber(arg[1] or 500)) or error("FRAMES is a number")
local JOBS = 100

local function timed(times, fn, ...)
  local began = core.now()
  fn(...)
  times[#times + 1] = 1e3 * (core.now() - began)
end

local function report(name, times)
  table.sort(times)
  local function at(part)
    return times[math.max(1, math.ceil(part * #times))]
  end
  print(("%-44s %6d %8.3f %8.3f %8.3f %8.3f"):format(name, #times, at(0.5), at(0.9), at(0.99),
    at(1)))
end

local function wait_a_frame()
  local deadline = core.now() + 0.001
  repeat until core.now() >= deadline
end

local function measure(name)
  local engine <close> = fork_map.new { max_children = JOBS, grace = 0 }
  local starts, idle, slow, ending = {}, {}, {}, {}
  for _ = 1, FRAMES do
    timed(idle, engine.step, engine)
  end
  local jobs = {}
  for i = 1, JOBS do
    timed(starts, function()
      jobs[i] = engine:spawn(fork_map.sleep, 1000)
    end)
  end
  for _ = 1, FRAMES do
    timed(slow, engine.step, engine)
    wait_a_frame()
  end
  for _, job in ipairs(jobs) do
    job:cancel(0)
  end
  for _, job in ipairs(jobs) do
    job:wait()
  end
  local n_begun, n_ended = 0, -JOBS
  local function again()
    n_ended = n_ended + 1
    if n_begun < FRAMES then
      n_begun = n_begun + 1
      engine:spawn(fork_map.sleep, 0.05):on_settle(again)
    end
  end
  for _ = 1, JOBS do
    again()
  end
  while n_ended < n_begun do
    timed(ending, engine.step, engine)
    wait_a_frame()
  end
  report(name .. ", start of a job", starts)
  report(name .. ", idle step", idle)
  report(name .. ", step, 100 slow jobs", slow)
  report(name .. ", step, 100 jobs that end and begin", ending)
end

local header = "%-44s %6s %8s %8s %8s %8s"
print(header:format("milliseconds", "n", "median", "90 %", "99 %", "most"))
measure("small host")
Ballast = {} -- luacheck: ignore 111
local ballast = Ballast -- luacheck: ignore 113
for i = 1, 2000000 do
  ballast[i] = { i }
end
measure("200 MB")
