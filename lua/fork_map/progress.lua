-- SPDX-License-Identifier: MIT
-- How far a map is: told to a function, or drawn as a bar on a terminal.

local core = require "fork_map.core"

local M = {}

---@class fork_map.Progress
---@field done integer items that have ended
---@field total integer?
---@field failed integer of them
---@field active integer workers
---@field rate number items per second
---@field eta number? seconds to the end

-- Seconds between two updates.
local PAUSE = 0.1

local BAR_WIDTH = 24

-- More than that is as good as for ever.
local TIME_MAX = 999 * 86400

local NAME_MAX = 32

local function format_time(time)
  local seconds = math.ceil(math.min(time, TIME_MAX))
  if seconds < 60 then
    return ("%ds"):format(seconds)
  elseif seconds < 3600 then
    return ("%dm%02ds"):format(seconds // 60, seconds % 60)
  elseif seconds < 2 * 86400 then
    return ("%dh%02dm"):format(seconds // 3600, seconds % 3600 // 60)
  end
  return ("%dd%02dh"):format(seconds // 86400, seconds % 86400 // 3600)
end

-- A line that wraps, or a name that steers the terminal, would spoil the screen.
local function format_name(name)
  if #name > NAME_MAX then
    -- No part of a character of UTF-8.
    name = name:sub(1, NAME_MAX - 3):gsub("[\xC0-\xFF][\x80-\xBF]*$", "") .. "..."
  end
  return (name:gsub("%c", "?"):gsub("\xC2[\x80-\x9F]", "?"))
end

local function format_rate(rate)
  for _, unit in ipairs { { 1e6, "M" }, { 1e3, "k" } } do
    if rate >= unit[1] then
      return ("%.1f%s/s"):format(rate / unit[1], unit[2])
    end
  end
  return rate >= 10 and ("%.0f/s"):format(rate) or ("%.1f/s"):format(rate)
end

---One line of text for the bar.
---@param state fork_map.Progress
---@param name string?
---@return string
function M.format(state, name)
  local parts = { name and format_name(name) }
  if state.total then
    local share = state.total > 0 and state.done / state.total or 1
    local full = math.floor(share * BAR_WIDTH)
    parts[#parts + 1] = ("[%s%s]"):format(("#"):rep(full), ("-"):rep(BAR_WIDTH - full))
    parts[#parts + 1] = ("%d/%d"):format(state.done, state.total)
  else
    parts[#parts + 1] = ("%d"):format(state.done)
  end
  parts[#parts + 1] = format_rate(state.rate)
  if state.eta and state.done < (state.total or 0) then
    parts[#parts + 1] = "ETA " .. format_time(state.eta)
  end
  if state.failed > 0 then
    parts[#parts + 1] = ("%d failed"):format(state.failed)
  end
  return table.concat(parts, "  ")
end

local function draw(self, state)
  io.stderr:write("\r", M.format(state, self.name), "\27[K")
  io.stderr:flush()
  self.is_drawn = true
end

---@param progress boolean|function|nil
---@param total integer?
---@param workers integer
---@param name string?
---@param before integer? items that had ended before
---@return table? nil when nobody wants to know
function M.new(progress, total, workers, name, before)
  if not progress or (progress == true and not core.is_terminal(2)) then
    return nil
  end
  return setmetatable({
    tell = type(progress) == "function" and progress or draw,
    total = total, workers = workers, name = name or nil, began = core.now(), told_at = 0,
    is_bar = progress == true, pause = PAUSE, before = before or 0,
  }, M)
end

M.__index = M

local function tell(self, done, failed, now)
  local elapsed = now - self.began
  local rate = elapsed > 0 and done / elapsed or 0
  local all = done + self.before
  local left = self.total and self.total - all
  local state = {
    done = all, total = self.total, failed = failed, active = self.workers, rate = rate,
    eta = left and rate > 0 and left / rate or nil,
  }
  self.told_at, self.told = now, done
  if self.is_bar then
    self:tell(state)
  else
    self.tell(state)
  end
end

---So many have ended.
function M:update(done, failed)
  local now = core.now()
  if now - self.told_at >= PAUSE and done ~= self.told then
    tell(self, done, failed, now)
  end
end

---That was all.
function M:finish(done, failed)
  if done ~= self.told then
    tell(self, done, failed, core.now())
  end
end

-- The bar's line is ended, however the map ends.
function M:__close()
  if self.is_drawn then
    io.stderr:write("\n")
    io.stderr:flush()
    self.is_drawn = false
  end
end

return M
