-- SPDX-License-Identifier: MIT
-- Promises: futures that somebody else settles, for executors that are not of this
-- library.
--
-- Being cancelled asks whoever made it, who may still settle it; after the grace it
-- is forced: it fails, whatever goes on elsewhere.

local cells = require "fork_map.cell"
local core = require "fork_map.core"
local futures = require "fork_map.future"
local loops = require "fork_map.loop"

local M = {}

-- Seconds that are left to who is asked to end it.
local GRACE = 1

-- Tell who made it that it is to end within `seconds`.
local function tell(cell, seconds)
  if not cell.on_cancel then
    return
  end
  local ok, err = loops.call(cell.on_cancel, seconds)
  if not ok then
    cell.loop:report(err, "callback")
  end
end

local function force(cell)
  tell(cell, 0)
  cell:fail(loops.new_cancelled_error())
end

-- What is asked twice is told once, and the earlier end holds.
local function ask(cell, seconds)
  local at = core.now() + seconds
  if cell.timer and cell.timer.at <= at then
    return
  end
  local is_first = not cell.timer
  if cell.timer then
    cell.loop:stop_timer(cell.timer)
  end
  cell.timer = cell.loop:at(at, function()
    cell:move("stop", "forced")
    force(cell)
  end)
  if is_first then
    tell(cell, seconds)
  end
end

local VERBS = {
  cancel = function(cell, grace)
    if grace == 0 or not cell.on_cancel then
      force(cell)
    else
      ask(cell, grace or GRACE)
    end
    return true
  end,
  close = function(cell)
    tell(cell, 0)
  end,
}

-- In a process that was forked since, nobody waits for it.
local function is_open(cell)
  return not cell.is_settled and not cell.loop:is_stale()
end

---A future of this loop, and what settles it.
---@param on_cancel? fun(seconds: number)
---@return fork_map.Future
---@return fun(...): boolean resolve
---@return fun(err: any): boolean reject
function M.new(loop, on_cancel)
  loop:check_open()
  local cell = cells.new(loop, "promise", VERBS)
  cell.on_cancel = on_cancel
  cell:move("state", "started")
  local function resolve(...)
    return is_open(cell) and cell:succeed(select("#", ...), { ... })
  end
  local function reject(err)
    if err == nil then
      error("fork_map.future: reject: an error is expected, not nil", 2)
    end
    return is_open(cell) and cell:fail(cells.to_error(err))
  end
  return futures.new(cell), resolve, reject
end

return M
