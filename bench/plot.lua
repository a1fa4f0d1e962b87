-- SPDX-License-Identifier: MIT
-- Line charts side by side, as SVG text: logarithmic axes, names at the ends of
-- the lines, colours for light and dark pages.  The same text for the same
-- numbers.

local M = {}

local WIDTH, HEIGHT = 500, 400
local LEFT, RIGHT, TOP, BOTTOM = 66, 26, 52, 56
local LABEL_HEIGHT, LETTER = 17, 7.5

-- What is drawn on light pages and on dark ones.
local COLOURS = {
  light = { "#0550ae", "#1a7f37", "#9a6700", "#cf222e", "#8250df" },
  dark = { "#79c0ff", "#56d364", "#e3b341", "#ff7b72", "#d2a8ff" },
}

local STYLE = [[
<style>
  text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }
  .title { font-size: 16px; font-weight: 600 }
  .small { font-size: 12px; fill: #59636e }
  .page { fill: #ffffff }
  .grid { stroke: #d8dee4; stroke-width: 1 }
  .mark { stroke: #59636e; stroke-width: 1.5; stroke-dasharray: 5 4 }
  .line { fill: none; stroke-width: 2.5; stroke-linejoin: round }
  .name { font-weight: 600; paint-order: stroke; stroke: #ffffff; stroke-width: 4px }
%s  @media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9198a1 } .page { fill: #0d1117 }
  .grid { stroke: #30363d } .mark { stroke: #9198a1 } .name { stroke: #0d1117 }
%s  }
</style>
]]

local function style_of(colours)
  local lines = {}
  for i, colour in ipairs(colours) do
    lines[i] = ("  .line.c%d { stroke: %s } .dot.c%d, .name.c%d { fill: %s }\n"):format(
      i, colour, i, i, colour)
  end
  return table.concat(lines)
end

local SUPERSCRIPTS = { "10", "10²", "10³", "10⁴", "10⁵", "10⁶", "10⁷", "10⁸", "10⁹" }

local function escape(text)
  return (text:gsub("[&<>]", { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;" }))
end

local function tick_text(axis, power)
  if axis.log == 10 and power > 3 then
    return SUPERSCRIPTS[power]
  elseif power >= 0 then
    return ("%d"):format(math.floor(axis.log ^ power + 0.5))
  end
  return ("%." .. -power .. "f"):format(axis.log ^ power)
end

---Where the value is on the axis, from 0 to 1.
local function place(axis, value)
  local at = (math.log(value) / math.log(axis.log) - axis.from) / (axis.to - axis.from)
  return math.max(0, math.min(1, at))
end

-- A piece of text being made.
local Canvas = {}
Canvas.__index = Canvas

function Canvas:add(format, ...)
  self[#self + 1] = format:format(...) .. "\n"
end

function Canvas:text(class, x, y, anchor, text)
  self:add('<text class="%s" x="%.1f" y="%.1f" text-anchor="%s">%s</text>',
    class, x, y, anchor, escape(text))
end

local function axes(canvas, chart)
  local x, y = chart.x, chart.y
  local right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
  for power = x.from, x.to do
    local at = LEFT + place(x, x.log ^ power) * (right - LEFT)
    canvas:add('<path class="grid" d="M%.1f %dV%d"/>', at, TOP, bottom)
    canvas:text("small", at, bottom + 18, "middle", tick_text(x, power))
  end
  for power = y.from, y.to do
    local at = bottom - place(y, y.log ^ power) * (bottom - TOP)
    canvas:add('<path class="grid" d="M%d %.1fH%d"/>', LEFT, at, right)
    canvas:text("small", LEFT - 8, at + 4, "end", tick_text(y, power))
  end
  canvas:text("title", LEFT, 26, "start", chart.title)
  canvas:text("small", (LEFT + right) / 2, HEIGHT - 14, "middle", x.name)
  canvas:add('<text class="small" transform="translate(16 %.1f) rotate(-90)" '
    .. 'text-anchor="middle">%s</text>', (TOP + bottom) / 2, escape(y.name))
end

local function is_free(boxes, box)
  for _, other in ipairs(boxes) do
    if math.abs(other.y - box.y) < LABEL_HEIGHT
      and box.x < other.x + other.width and other.x < box.x + box.width then
      return false
    end
  end
  return true
end

-- Above the end of the line, or as near to that as there is room.
local function label(canvas, boxes, class, name, x, y)
  local width = (utf8.len(name) or #name) * LETTER
  local left = math.min(x - width / 2, WIDTH - RIGHT - width)
  local box = { x = left, width = width }
  for _, shift in ipairs { -10, 20, -27, 37, -44, 54 } do
    box.y = y + shift
    if box.y > TOP - 4 and is_free(boxes, box) then
      break
    end
  end
  boxes[#boxes + 1] = box
  canvas:text("name " .. class, left + width / 2, box.y, "middle", name)
end

local function draw_series(canvas, chart, points_of, boxes)
  for i, series in ipairs(chart.series) do
    local class, path = ("c%d"):format((i - 1) % #COLOURS.light + 1), {}
    for k, point in ipairs(series) do
      local x, y = points_of(point)
      path[k] = ("%s%.1f %.1f"):format(k == 1 and "M" or "L", x, y)
    end
    canvas:add('<path class="line %s" d="%s"/>', class, table.concat(path))
    for _, point in ipairs(series) do
      canvas:add('<circle class="dot %s" cx="%.1f" cy="%.1f" r="3.5"/>', class, points_of(point))
    end
  end
  for i, series in ipairs(chart.series) do
    local x, y = points_of(series[#series])
    label(canvas, boxes, ("c%d"):format((i - 1) % #COLOURS.light + 1), series.name, x, y)
  end
end

-- Whole powers around all values.
local function fit(axis, series, k)
  local least, most = math.huge, -math.huge
  for _, one in ipairs(series) do
    for _, point in ipairs(one) do
      local power = math.log(point[k]) / math.log(axis.log)
      least, most = math.min(least, power), math.max(most, power)
    end
  end
  axis.from, axis.to = math.floor(least + 1e-9), math.ceil(most - 1e-9)
end

local function draw_chart(canvas, chart)
  local right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
  local function points_of(point)
    return LEFT + place(chart.x, point[1]) * (right - LEFT),
      bottom - place(chart.y, point[2]) * (bottom - TOP)
  end
  fit(chart.x, chart.series, 1)
  fit(chart.y, chart.series, 2)
  axes(canvas, chart)
  local _, y = points_of { chart.x.log ^ chart.x.from, chart.mark }
  canvas:add('<path class="mark" d="M%d %.1fH%d"/>', LEFT, y, right)
  draw_series(canvas, chart, points_of, {})
end

---@param charts table[] { title =, x = axis, y = axis, mark = where a line goes across, series = };
---  an axis is { name =, log = base }, series are { name =, { x, y }, … }
---@return string
function M.draw(charts)
  local canvas = setmetatable({}, Canvas)
  local width = #charts * WIDTH
  canvas:add('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img">',
    width, HEIGHT)
  canvas[#canvas + 1] = STYLE:format(style_of(COLOURS.light), style_of(COLOURS.dark))
  canvas:add('<rect class="page" width="%d" height="%d" rx="6"/>', width, HEIGHT)
  for i, chart in ipairs(charts) do
    canvas:add('<g transform="translate(%d 0)">', (i - 1) * WIDTH)
    draw_chart(canvas, chart)
    canvas:add("</g>")
  end
  canvas:add("</svg>")
  return table.concat(canvas)
end

return M
