-- SPDX-License-Identifier: MIT
-- Waiting for a descriptor, as tasks wait for futures: cancel, deadlines, nurseries
-- and loops of hosts end the wait in the same way.
--
-- One watch is one look: its core part is there from the call of wait_fd() until
-- that returns or raises, whatever ends it.  The engine knows an entry, which
-- settles the cell; who waits has the watch, which takes everything back.

local cells = require "fork_map.cell"
local core = require "fork_map.core"
local futures = require "fork_map.future"
local loops = require "fork_map.loop"

local M = {}

-- What the engine gives the loop when the descriptor is ready.
local Entry = {}
Entry.__index = Entry

-- Nobody asked for this future, and step() does not count it.
local function uncount(cell)
  cell.loop.n_settled = cell.loop.n_settled - 1
end

function Entry:take()
  if self.cell:succeed(0, {}) then
    uncount(self.cell)
  end
end

local Watch = {}

function Watch:__close()
  local cell, watch = self.cell, self.entry[1]
  if watch then
    core.unwatch(watch)
  end
  if self.waits then
    self.waits[self.entry] = nil
  end
  cell.loop.n_watches = cell.loop.n_watches - 1
  cell.seen = true
  if not cell.is_settled and cell:fail(loops.new_cancelled_error()) then
    uncount(cell)
  end
end

local VERBS = {}

---Wait until the descriptor can be read ("r") or written ("w"), or has failed, or
---until the time `deadline`: at least one look, also when that is over.  Files that
---are always ready are so.  It must stay open meanwhile.
---@param fd integer
---@param mode "r"|"w"
---@param deadline? number a time of core.now()
---@param waits? table<table, true> where it is listed for end_waits()
---@return boolean? ready nil when it cannot be waited for
---@return string? message
---@return string? name of the error, such as "EBADF"
function loops.Loop:wait_fd(fd, mode, deadline, waits)
  self:check_open()
  local cell = cells.new(self, "fd", VERBS)
  local entry = setmetatable({ cell = cell }, Entry)
  self.n_watches = self.n_watches + 1
  local _ <close> = setmetatable({ entry = entry, cell = cell, waits = waits }, Watch)
  if waits then
    waits[entry] = true
  end
  local watch, message, name = core.watch(self.core, fd, mode, entry)
  if not watch then
    if name == "EPERM" then
      return true
    end
    return nil, message, name
  end
  -- Held here, as whoever waits at top level holds the cell alone: collected, it would
  -- be the end of the wait.
  local f = futures.new(cell)
  local is_ready = loops.wait(f, cell, deadline)
  if cell.err then
    error(cell.err, 0)
  end
  return is_ready
end

-- What calls a function, once, when a descriptor is ready.
local Listener = {}
Listener.__index = Listener

function Listener:take()
  self:stop()
  self.fn()
end

---It is not called any more.  May be repeated.
function Listener:stop()
  local loop = self.loop
  if not loop then
    return
  end
  self.loop = nil
  loop.n_watches = loop.n_watches - 1
  if self[1] then
    core.unwatch(self[1])
  end
end

---Call `fn()` from the loop, once, when the descriptor is ready.  It may neither wait
---nor raise.
---@return table? listener with a method stop()
---@return string? message
---@return string? name
function M.listen(loop, fd, mode, fn)
  local self = setmetatable({ loop = loop, fn = fn }, Listener)
  loop.n_watches = loop.n_watches + 1
  local watch, message, name = core.watch(loop.core, fd, mode, self)
  if not watch then
    self:stop()
    return nil, message, name
  end
  return self
end

---End the waits that are listed here, as if their descriptors were ready: they are
---not watched any more and may be closed.
function M.end_waits(waits)
  for entry in pairs(waits) do
    if entry[1] then
      core.unwatch(entry[1])
    end
    entry:take()
  end
end

return M
