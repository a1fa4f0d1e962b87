-- SPDX-License-Identifier: MIT
-- Items that an iterator gives: read lazily, never more than a few ahead of who
-- consumes the results, and fed to the workers of a map.

local core = require "fork_map.core"
local inline = require "fork_map.inline"

local M = {}

-- Items that are read ahead, for each worker, unless option max_active says how
-- many; and their bytes, above which two for each worker are enough.
local AHEAD = 64
local BYTES_AHEAD = 64 << 20
local FEW = 2

-- Seconds of reading after which the workers are looked after.
local READING = 0.001

---@class fork_map.Source
---@field next function the iterator
---@field n integer items that were read
---@field is_dry boolean it has ended
local Source = {}
Source.__index = Source

---@param plan fork_map.Plan
---@return fork_map.Source? nil when the plan has a list
function M.new(plan)
  if not plan.source then
    return nil
  end
  return setmetatable({
    plan = plan, next = plan.source, n = 0, n_refused = 0, is_dry = false,
    active = plan.opts.max_active or AHEAD * math.max(1, plan.workers),
    bytes_ahead = plan.opts.max_active and math.huge or BYTES_AHEAD,
  }, Source)
end

---The next item, nil at the end.  `on_error` is called before what the iterator
---raises is raised here.
---@param on_error fun(): any
---@return any item
function Source:read(on_error)
  if self.is_dry then
    return nil
  elseif self.is_reading then
    error("fork_map: an iterator cannot ask for the results of its own items", 0)
  end
  self.is_reading = true
  local ok, item = pcall(self.next)
  self.is_reading = false
  if not ok then
    self.is_dry = true
    on_error()
    error(item, 0)
  elseif item == nil then
    self.is_dry = true
    return nil
  end
  self.n = self.n + 1
  return item
end

-- The item that was just read cannot cross.
local function refuse(self, path, reason)
  local opts = self.plan.opts
  self.n_refused = self.n_refused + 1
  return setmetatable({
    kind = "encode", message = reason, path = path, index = self.n, attempt = 1,
    name = opts.name or nil,
  }, core.Error)
end

-- May one more be read, after those of which so many were consumed?
local function has_room(self, consumed, open, bytes)
  return self.n - consumed < self.active
    and (bytes < self.bytes_ahead or open < FEW * self.plan.workers)
end

---Read items and feed them, as long as there is room for them, for a moment.
---@param stream table with its `map`; `stream:refuse(index, err)` takes failures
---@param consumed integer items whose results were handed out
---@return boolean has_read
function Source:fill(stream, consumed)
  local before, untl = self.n, core.now() + READING
  local open, bytes = core.map_waiting(stream.map)
  while not self.is_dry and has_room(self, consumed, open, bytes) do
    local item = self:read(function()
      stream:close()
    end)
    local map = stream.map
    if not map then -- closed by the iterator
      break
    elseif item == nil then
      core.map_feed_end(map)
      break
    end
    local fed, path, reason = core.map_feed(map, item)
    if fed == nil then
      core.map_feed_none(map)
      stream:refuse(self.n, refuse(self, path, reason))
    end
    open, bytes = open + 1, fed or bytes
    if core.now() >= untl then
      break
    end
  end
  return self.n > before
end

---The next item for who works on it in this process.
---@param on_error fun(): any
---@return boolean has_one
---@return fork_map.Error? failure it cannot cross
function Source:take(on_error)
  local item = self:read(on_error)
  if item == nil then
    return false
  end
  local plan = self.plan
  local crossed, err = inline.receive(plan, self.n, item)
  if err then
    return true, err
  end
  -- A second attempt gets a fresh one.
  plan.get = function()
    local given = crossed
    crossed = nil
    if given == nil then
      given = inline.receive(plan, self.n, item)
    end
    return given
  end
  return true
end

return M
