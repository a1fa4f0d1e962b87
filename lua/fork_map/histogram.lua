-- SPDX-License-Identifier: MIT
-- How long things took, in buckets of about a tenth of their size: a fixed amount
-- of memory for any number of them.

local log = math.log

local M = {}

-- Times from a tenth of a microsecond on; each bucket is 2^(1/8) times the last.
local LEAST = 1e-7
local STEPS = 8
local MOST = 400

---@class fork_map.Histogram
local Histogram = {}
Histogram.__index = Histogram

---@return fork_map.Histogram
function M.new()
  return setmetatable({ n = 0, max = 0 }, Histogram)
end

---@param seconds number
function Histogram:add(seconds)
  local bucket = 0
  if seconds > LEAST then
    bucket = log(seconds / LEAST, 2) * STEPS // 1 | 0
    if bucket > MOST then
      bucket = MOST
    end
  end
  self[bucket] = (self[bucket] or 0) + 1
  self.n = self.n + 1
  if seconds > self.max then
    self.max = seconds
  end
end

-- The upper end of the bucket that so many of all are in or below.
local function find(self, share)
  local rank, seen = share * self.n, 0
  for bucket = 0, MOST do
    seen = seen + (self[bucket] or 0)
    if seen >= rank and seen > 0 then
      return math.min(LEAST * 2 ^ ((bucket + 1) / STEPS), self.max)
    end
  end
  return self.max
end

---The times that half, nine in ten and 99 of a hundred are within, and the longest.
---@return { p50: number, p90: number, p99: number, max: number }
function Histogram:summary()
  return {
    p50 = find(self, 0.5), p90 = find(self, 0.9), p99 = find(self, 0.99), max = self.max,
  }
end

return M
