-- SPDX-License-Identifier: MIT
--
-- What the flight recorder costs a closure that does nothing but compute.
--
--   lua5.4 bench/recorder.lua [ROUNDS]     (bench/run builds what it needs)
--
-- The same closure runs in a child of fork_map, with the recorder, and in a
-- bare fork without it, A B B A within every round.  Both report the CPU time
-- that the closure itself took, so what a call costs besides is left out (that
-- is bench/calls.lua).  The row is the median of the rounds' ratios to the bare
-- fork; the second row compares the bare fork with itself, which is what the
-- machine's noise amounts to.

local fork_map = require "fork_map"
local floor = require "floor"
local median = require "rows".median
local rounds = math.max(7, tonumber(arg[1] or 15))

---Iterations that take about 0.3 s of CPU time here.
local iterations = 1000000

---Computes, and tells the CPU time that it took, in the integer x that a child of
---floor.lua can give back.
local function work()
  local began = os.clock()
  local n = 0
  for i = 1, iterations do
    n = n + i % 7
  end
  return {x = math.ceil((os.clock() - began) * 1e6)}
end

local function recorded()
  return fork_map(work).x
end

local function bare()
  return floor.lua(work, 0).x
end

iterations = math.ceil(iterations * 0.3e6 / bare())
bare()
recorded()

local with, without = {}, {}
for r = 1, rounds do
  local first = bare()
  local a = recorded() + recorded()
  local last = bare()
  with[r] = a / (first + last)
  without[r] = last / first
end

local function row(title, list)
  local mid = median(list)
  io.write(("  %-34s %7.4f   (%.4f to %.4f)\n"):format(title, mid, list[1], list[#list]))
end

io.write("CPU time of a busy closure, to that in a bare fork\n")
row("fork_map, with its recorder", with)
row("the bare fork again", without)
