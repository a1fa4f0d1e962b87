-- SPDX-License-Identifier: MIT
--
-- When a map pays: from 10 to 10 million items, and from 1 to 64 workers.
--
--   lua5.4 bench/curves.lua                 measure, then plot
--   lua5.4 bench/curves.lua quick           the same in little time, into build/
--   lua5.4 bench/curves.lua plot            plot what was measured before
--
-- (bench/run builds what it needs.)  Measuring writes curves.txt beside this
-- file; plotting makes of it curves.svg and the table in RESULTS.md, the same
-- for the same numbers.

local mode = arg[1] or "all"
local IS_QUICK = mode == "quick"
local HOME = IS_QUICK and "build/" or "bench/"
local DATA, PLOT = HOME .. "curves.txt", HOME .. "curves.svg"

local page = require "page"
local plot = require "plot"
local rows = require "rows"

local ROUNDS = IS_QUICK and 3 or 7

-- No turn of a candidate takes much longer than this.
local SECONDS_MAX = IS_QUICK and 0.1 or 1

-- ------------------------------------------------------------- measuring

local function measure()
  local fork_map = require "fork_map"
  local floor = require "floor"
  local engine = fork_map.new { max_children = 64 }
  local data = {}

  local function keep(chart, series, x, y)
    data[#data + 1] = { chart = chart, series = series, x = x, y = y }
    print(("%-8s %-22s %9d  %.4g"):format(chart, series, x, y))
    io.stdout:flush()
  end

  local function time(fn, times)
    collectgarbage()
    local began = floor.now()
    for _ = 1, times do
      fn()
    end
    return (floor.now() - began) / times
  end

  -- Median of what one takes, to the other in the same round.  What is quick
  -- is done so often that a turn lasts.
  local function compare(one, other)
    one()
    local once = math.max(1, time(other, 1))
    local times = math.max(1, math.min(200, (IS_QUICK and 2000 or 20000) // once))
    local ratios = {}
    for r = 1, ROUNDS do
      local first = time(other, times)
      ratios[r] = time(one, times) / first
    end
    return rows.median(ratios)
  end

  local function work(x, n)
    for _ = 1, n do
      x = x * 16807 % 2147483647
    end
    return x
  end

  local best = math.huge
  for _ = 1, 5 do
    best = math.min(best, time(function() return work(1, 100000) end, 1))
  end
  local a_microsecond = 100000 / best

  local function items_of(microseconds)
    local n = math.max(1, math.floor(a_microsecond * microseconds))
    return function(i)
      return work(i, n)
    end
  end

  local function looped(n, fn)
    return function()
      local r = {}
      for i = 1, n do
        r[i] = fn(i)
      end
      return #r
    end
  end

  local function mapped(n, fn, workers)
    return function()
      return engine:map(n, fn, { workers = workers }).n
    end
  end

  -- How many times as fast as the loop.
  for _, kind in ipairs {
    { "i * 1234", 0.05, function(i) return i * 1234 end },
    { "1 µs", 1, items_of(1) },
    { "10 µs", 10, items_of(10) },
    { "100 µs", 100, items_of(100) },
    { "1 ms", 1000, items_of(1000) },
  } do
    for e = 1, 7 do
      local n = math.tointeger(10 ^ e)
      if n * kind[2] <= SECONDS_MAX * 1e6 then
        keep("items", kind[1], n, 1 / compare(mapped(n, kind[3], 2), looped(n, kind[3])))
      end
    end
  end

  -- Cost in plain forks.
  local function plain()
    return floor.lua(function(i) return { x = i } end, 1)
  end
  local function tiny(i)
    return i * 1234
  end
  for _, n in ipairs { 64, 100000 } do
    for e = 0, 6 do
      local workers = 1 << e
      local name = n == 64 and "64 items" or "100,000 items"
      keep("workers", name, workers, compare(mapped(n, tiny, workers), plain))
    end
  end
  engine:close()
  return data
end

-- ----------------------------------------------------------- what is kept

local function save(data)
  local lines = { "# chart, series, x, y; written by bench/curves.lua\n" }
  for _, point in ipairs(data) do
    lines[#lines + 1] = ("%s\t%s\t%d\t%.4g\n"):format(point.chart, point.series, point.x, point.y)
  end
  page.write(DATA, table.concat(lines))
end

-- chart -> { { name =, [1] = { x, y }, … }, … }, in the order of the file.
local function load_data()
  local charts = { items = {}, workers = {} }
  for line in page.read(DATA):gmatch("[^\n]+") do
    local chart, series, x, y = line:match("^(%l+)\t([^\t]+)\t(%d+)\t(%S+)$")
    if chart then
      local all = charts[chart]
      if not all[series] then
        all[series] = { name = series }
        all[#all + 1] = all[series]
      end
      table.insert(all[series], { tonumber(x), tonumber(y) })
    end
  end
  return charts
end

-- --------------------------------------------------------------- the page

local function format_count(n)
  local text = ("%d"):format(n)
  return (text:reverse():gsub("(%d%d%d)", "%1,"):reverse():gsub("^,", ""))
end

local function format_figure(y)
  local places = y and (y < 0.00095 and 4 or y < 0.095 and 3 or y < 9.95 and 2 or 0)
  return y and ("%." .. places .. "f"):format(y) or ""
end

-- One column for each series, one line for each x.
local function table_of(all, head)
  local names, rules, xs, rows_of, lines = { head }, { "---" }, {}, {}, {}
  for i, series in ipairs(all) do
    names[i + 1], rules[i + 1] = series.name, "---"
    for _, point in ipairs(series) do
      local x = point[1]
      if not rows_of[x] then
        rows_of[x], xs[#xs + 1] = {}, x
      end
      rows_of[x][i] = point[2]
    end
  end
  table.sort(xs)
  lines[1] = "| " .. table.concat(names, " | ") .. " |"
  lines[2] = "|" .. table.concat(rules, "|") .. "|"
  for k, x in ipairs(xs) do
    local cells = { format_count(x) }
    for i = 1, #all do
      cells[i + 1] = format_figure(rows_of[x][i])
    end
    lines[k + 2] = "| " .. table.concat(cells, " | ") .. " |"
  end
  return table.concat(lines, "\n")
end

local function show(charts)
  local text = ("%s\n\n%s"):format(
    table_of(charts.items, "items; speed to a loop"),
    table_of(charts.workers, "workers; time in plain forks"))
  if IS_QUICK then
    print(text)
  else
    page.fill("curves.lua", text)
  end
end

if mode ~= "plot" then
  save(measure())
end
local charts = load_data()
page.write(PLOT, plot.draw {
  {
    title = "What a map of 2 workers gains",
    x = { name = "items of the map (lines: time of one)", log = 10 },
    y = { name = "speed, plain loop = 1", log = 10 },
    mark = 1,
    series = charts.items,
  },
  {
    title = "What a map of tiny items costs",
    x = { name = "workers (lines: items of the map)", log = 2 },
    y = { name = "time of the map, plain fork = 1", log = 10 },
    mark = 1,
    series = charts.workers,
  },
})
show(charts)
