-- SPDX-License-Identifier: MIT
-- What the benchmarks share: medians, rows of candidates, and candidates that are
-- other programs.

local floor = require "floor"
local page = require "page"

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

local function time_ratio(first, own)
  return own / first
end

---How many times as fast as the first.
function M.speed(first, own)
  return first / own
end

---What part of `workers` processors did the first one's work.
function M.efficiency(workers)
  return function(first, own)
    return first / own / workers
  end
end

---One row: alternate the candidates within every round (A B C A B C ...) and
---print, for each, the median and the middle half of the rounds' ratios to the
---first.
---@param title string
---@param rounds integer
---@param n integer calls per candidate and round
---@param candidates { [1]: string, [2]: fun(n: integer): number? }[] name, and what makes the
---   calls; it may return the microseconds that they took where it measures itself
---@param opts? { figure: (fun(first: number, own: number): number), collects: boolean }
---   the figure of two times [own / first]; collect garbage before each turn [false]
---@return string lines of a table in Markdown
function M.row(title, rounds, n, candidates, opts)
  local figure = opts and opts.figure or time_ratio
  local collects = opts and opts.collects
  local ratios = {}
  for i = 1, #candidates do
    candidates[i][2](n) -- warm
    ratios[i] = {}
  end
  for r = 1, rounds do
    local times = {}
    for i, candidate in ipairs(candidates) do
      if collects then
        collectgarbage()
      end
      local began = floor.now()
      local own = candidate[2](n)
      times[i] = own or floor.now() - began
    end
    for i = 1, #candidates do
      ratios[i][r] = figure(times[1], times[i])
    end
  end
  io.write(title, "\n")
  local lines = { ("| **%s** | | |"):format(title) }
  for i, candidate in ipairs(candidates) do
    local name, mid = candidate[1], M.median(ratios[i])
    local low, high = quartiles(ratios[i])
    io.write(("  %-34s %6.2f   (%.2f to %.2f)\n"):format(name, mid, low, high))
    lines[i + 1] = ("| %s | %.2f | %s |"):format(name, mid,
      i > 1 and ("%.2f to %.2f"):format(low, high) or "")
  end
  io.flush()
  return table.concat(lines, "\n")
end

---Rows that are a table of RESULTS.md: what makes one, as M.row(); what ends the
---table, and writes it down where the program was called with "write"; and the number
---of rounds that it was called with, at least seven.
---@param name string of the program
---@return fun(...), fun(), integer
function M.begin(name)
  local lines = { "| | median | middle half |", "|---|---|---|" }
  local function row(...)
    lines[#lines + 1] = M.row(...)
  end
  local function finish()
    if arg[2] == "write" then
      page.fill(name, table.concat(lines, "\n"))
    end
  end
  return row, finish, math.max(7, tonumber(arg[1] or 9))
end

---A candidate that is another program: it gets the number of calls as its last
---argument, and says how many microseconds they took.
---@param command string
---@return fun(n: integer): number
function M.program(command)
  return function(n)
    local pipe <close> = assert(io.popen(("%s %d"):format(command, n)))
    return assert(pipe:read("n"), command)
  end
end

---Whether this command runs here.
function M.has(command)
  return os.execute(command .. " >/dev/null 2>&1") == true
end

return M
