-- SPDX-License-Identifier: MIT
-- Timers of a loop: a binary heap by time.  Those that were stopped go when they
-- come to the top, or when they are most of them.

local M = {}

-- Stopped timers that need not be looked for.
local STOPPED_MOST = 32

---Whether it is a time to wait, in seconds: 0 or more, for ever included.
---@return boolean
function M.is_span(seconds)
  return type(seconds) == "number" and seconds >= 0
end

---@class fork_map.Timers
---@field n integer with those that were stopped
---@field package heap { at: number, fn: function?, number: integer }[]
---@field package n_stopped integer
local Timers = {}
Timers.__index = Timers

---@return fork_map.Timers
function M.new()
  return setmetatable({ heap = {}, n = 0, n_stopped = 0, n_made = 0 }, Timers)
end

local function is_before(a, b)
  return a.at < b.at or a.at == b.at and a.number < b.number
end

local function sift_up(heap, i)
  local timer = heap[i]
  while i > 1 do
    local above = i // 2
    if not is_before(timer, heap[above]) then
      break
    end
    heap[i], i = heap[above], above
  end
  heap[i] = timer
end

local function sift_down(heap, n)
  local timer, i = heap[1], 1
  while 2 * i <= n do
    local below = 2 * i
    if below < n and is_before(heap[below + 1], heap[below]) then
      below = below + 1
    end
    if not is_before(heap[below], timer) then
      break
    end
    heap[i], i = heap[below], below
  end
  heap[i] = timer
end

local function drop_first(self)
  local heap, n = self.heap, self.n
  heap[1] = heap[n]
  heap[n] = nil
  self.n = n - 1
  if n > 1 then
    sift_down(heap, n - 1)
  end
end

---Call `fn()` at the time `at`.
function Timers:add(at, fn)
  self.n_made = self.n_made + 1
  local timer = { at = at, fn = fn, number = self.n_made }
  self.n = self.n + 1
  self.heap[self.n] = timer
  sift_up(self.heap, self.n)
  return timer
end

---The time of the next one, or nil.
function Timers:next()
  local heap = self.heap
  while heap[1] and not heap[1].fn do
    drop_first(self)
    self.n_stopped = self.n_stopped - 1
  end
  return heap[1] and heap[1].at
end

---Do not call it any more; it may have been called.
function Timers:stop(timer)
  if not timer.fn then
    return
  end
  timer.fn = nil
  self.n_stopped = self.n_stopped + 1
  if self.n_stopped <= STOPPED_MOST or 2 * self.n_stopped <= self.n then
    return
  end
  local heap, n = {}, 0
  for _, other in ipairs(self.heap) do
    if other.fn then
      n = n + 1
      heap[n] = other
      sift_up(heap, n)
    end
  end
  self.heap, self.n, self.n_stopped = heap, n, 0
end

---Call those whose time was before `time`.
function Timers:expire(time)
  while true do
    local at = self:next()
    if not at or at > time then
      return
    end
    local timer = self.heap[1]
    local fn = timer.fn
    timer.fn = nil
    drop_first(self)
    fn()
  end
end

return M
