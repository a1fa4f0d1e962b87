-- SPDX-License-Identifier: MIT
-- What the benchmarks share: medians, and rows of candidates.

local floor = require "floor"

local M = {}

---Of numbers; sorts the list.
function M.median(list)
  table.sort(list)
  local n = #list
  return n % 2 == 1 and list[n // 2 + 1] or (list[n // 2] + list[n // 2 + 1]) / 2
end

-- The middle half of a sorted list.
local function quartiles(list)
  return list[#list // 4 + 1], list[#list - #list // 4]
end

---One row: alternate the candidates within every round (A B C A B C ...) and
---print, for each, the median and the middle half of the rounds' ratios to the
---first.
---@param title string
---@param rounds integer
---@param n integer calls per candidate and round
---@param candidates { [1]: string, [2]: fun(n: integer) }[] name, and what makes the calls
function M.row(title, rounds, n, candidates)
  local ratios = {}
  for i = 1, #candidates do
    candidates[i][2](n) -- warm
    ratios[i] = {}
  end
  for r = 1, rounds do
    local times = {}
    for i, candidate in ipairs(candidates) do
      local began = floor.now()
      candidate[2](n)
      times[i] = floor.now() - began
    end
    for i = 1, #candidates do
      ratios[i][r] = times[i] / times[1]
    end
  end
  io.write(title, "\n")
  for i, candidate in ipairs(candidates) do
    local mid = M.median(ratios[i])
    io.write(("  %-34s %6.2f   (%.2f to %.2f)\n"):format(candidate[1], mid,
      quartiles(ratios[i])))
  end
  io.flush()
end

return M
