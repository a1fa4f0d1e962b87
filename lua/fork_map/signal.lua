-- SPDX-License-Identifier: MIT
-- Signals: what waits for the next change of something else than a future.  Its
-- owner has a field for each, which is nil while nobody waits.

local cells = require "fork_map.cell"
local futures = require "fork_map.future"
local loops = require "fork_map.loop"

local M = {}

---What wait() needs of a signal.  `needs_task(cell, known)` tells as that of a cell
---whether only tasks can raise it; `cell.owner` is its owner.
---@return table verbs
function M.new_verbs(needs_task)
  return { is_signal = true, needs_task = needs_task }
end

---Of a signal that only tasks can raise if they do so to all futures in this field of
---its owner.
---@param field string
---@return table verbs
function M.new_verbs_of(field)
  return M.new_verbs(function(cell, known)
    for _, f in pairs(cell.owner[field]) do
      if not f.cell:needs_task(known) then
        return false
      end
    end
    return true
  end)
end

---Of a signal that processes, or time, can raise.
M.OUTSIDE = M.new_verbs(function()
  return false
end)

---Wait until `name` of the owner is raised, together with all that wait for it.
---@param owner table its `loop` is where
---@param name string
---@param verbs table
---@param is_shielded? boolean
function M.wait(owner, name, verbs, is_shielded)
  local f = owner[name]
  if not f then
    f = futures.new(cells.new(owner.loop, "signal", verbs))
    f.cell.owner = owner
    owner[name] = f
  end
  loops.wait(f, f.cell, nil, is_shielded)
end

---End these waits.
function M.raise(owner, name)
  local f = owner[name]
  if f then
    owner[name] = nil
    f.cell:succeed(0, {})
  end
end

return M
