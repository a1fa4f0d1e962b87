-- SPDX-License-Identifier: MIT
-- Cells: what futures are handles of.  A cell is kept alive by what will settle
-- it: the engine, a task, another cell.  It knows who waits for it, never its
-- own handle, so that a handle nobody has and nobody waits with is collected.
--
-- Three axes, each with one table of legal moves and one writer, Cell:move().
--
--   state  waiting (for arguments, or for its turn) -> started -> settled; while
--          it is started the engine's own states tell queued from running
--   stop   none -> asked -> forced, never back
--   pump   who waits is told: parked until it settles, ready in the loop's
--          queue, pumping; pumping_again when somebody came in the meantime; done

local core = require "fork_map.core"
local loops = require "fork_map.loop"

local Error = core.Error

local MOVES = {
  state = {
    waiting = { started = true, settled = true },
    started = { settled = true },
    settled = {},
  },
  stop = {
    none = { asked = true, forced = true },
    asked = { forced = true },
    forced = {},
  },
  pump = {
    parked = { ready = true },
    ready = { pumping = true },
    pumping = { pumping_again = true, done = true },
    pumping_again = { ready = true },
    done = { ready = true },
  },
}

local M = { MOVES = MOVES }

---@class fork_map.Cell
---@field loop fork_map.Loop
---@field kind string
---@field is_settled boolean
---@field outcome "done"|"failed"|"cancelled"|nil
---@field seen boolean somebody has looked at a failure, or cannot any more
local Cell = {}
Cell.__index = Cell
M.Cell = Cell

local trace

---Call `fn(kind, axis, from, to, cell)` at every move; nil: no more.
function M.set_trace(fn)
  trace = fn
end

-- A cell that cannot be cancelled, forgotten or started has none of these.
local NO_VERBS = {}

---@param loop fork_map.Loop
---@param kind string
---@param verbs? { cancel?: function, needs_task?: function, status?: function, goes_on?: boolean }
---@return fork_map.Cell
function M.new(loop, kind, verbs)
  local self = setmetatable({
    loop = loop, kind = kind, verbs = verbs or NO_VERBS,
    state = "waiting", stop = "none", pump = "parked",
    is_settled = false, seen = false, n = 0,
  }, Cell)
  if not self.verbs.is_signal then
    loop:add(self)
  end
  return self
end

---The only writer of `state`, `stop` and `pump`; false, with nothing changed,
---for a move that is not in the table.
function Cell:move(axis, to)
  local from = self[axis]
  if not MOVES[axis][from][to] then
    return false
  end
  self[axis] = to
  if trace then
    trace(self.kind, axis, from, to, self)
  end
  return true
end

---An error of a child's or the engine's kind.
function M.new_error(kind, message)
  return setmetatable({ kind = kind, message = message }, Error)
end

---What was raised, as a fork_map.Error; for xpcall.
function M.to_error(raised)
  if getmetatable(raised) == Error then
    return raised
  end
  local err = M.new_error("error", type(raised) == "string" and raised or tostring(raised))
  err.value = raised
  err.traceback = debug.traceback(err.message, 2)
  return err
end
loops.to_error = M.to_error

function loops.new_closed_error()
  return M.new_error("closed", "the engine was closed")
end

function loops.new_stale_error()
  return M.new_error("closed", "it belongs to the parent process")
end

function loops.new_cancelled_error()
  return M.new_error("cancelled", "it was cancelled")
end

-- ---------------------------------------------------------------- settling

-- Have those that wait told, from the loop.
local function schedule(self)
  if self.pump == "pumping" then
    self:move("pump", "pumping_again")
  elseif self:move("pump", "ready") then
    self.loop:push_due(self)
  end
end

-- A failure that nobody can look at any more.  Who closes an engine knows that
-- nothing of it comes to its end.
local function report_unseen(self)
  if not self.seen and self.outcome == "failed" and self.err.kind ~= "closed" then
    self.seen = true
    self.loop:report(self.err, "unseen")
  end
end
Cell.report_unseen = report_unseen

local function finish(self, outcome)
  if not self:move("state", "settled") then
    return false
  end
  local loop = self.loop
  self.is_settled, self.outcome = true, outcome
  self.fn, self.args = nil, nil
  if not self.verbs.is_signal then
    loop:remove(self)
  end
  if self.timer then
    loop:stop_timer(self.timer)
  end
  if self.beacon then
    core.beacon_light(self.beacon)
  end
  if self.waiters or self.scope then
    schedule(self)
  elseif self.is_orphan then
    report_unseen(self)
  end
  self:let_inputs_go()
  return true
end

---Settle with the values `values[1]` to `values[n]`.
---@return boolean false when it had settled
function Cell:succeed(n, values)
  if self.is_settled then
    return false
  end
  self.n, self.values = n, values
  return finish(self, "done")
end

---Settle with a failure.  What was cancelled is told apart.
function Cell:fail(err, outcome)
  if self.is_settled then
    return false
  end
  self.err = err
  return finish(self, outcome or (err.kind == "cancelled" and "cancelled" or "failed"))
end

---Settle as that other cell has.
function Cell:follow(other)
  other.seen = true
  if other.outcome == "done" then
    return self:succeed(other.n, other.values)
  end
  return self:fail(other.err, other.outcome)
end

-- ----------------------------------------------------------------- waiters

---Call `fn()` once from the loop when it has settled.  The future `f` is held
---until then.  `fn` may not raise and may not wait.
function Cell:add_waiter(f, fn)
  if self.loop:is_stale() then
    error(loops.new_stale_error(), 0)
  end
  -- New tables first: as they are made a finalizer may take others back.
  local waiter = { f = f, fn = fn }
  if not self.waiters then
    local fresh = { n = 0, n_gone = 0 }
    self.waiters = self.waiters or fresh
  end
  local waiters = self.waiters
  waiters.n = waiters.n + 1
  waiters[waiters.n] = waiter
  if self.is_settled then
    schedule(self)
  end
  return waiter
end

-- Without those that were taken back, in the same order.
local function compact(self, waiters)
  local n = 0
  for i = 1, waiters.n do
    local waiter = waiters[i]
    waiters[i] = nil
    if waiter.fn then
      n = n + 1
      waiters[n] = waiter
    end
  end
  waiters.n, waiters.n_gone = n, 0
  if n == 0 then
    self.waiters = nil
  end
end

function Cell:remove_waiter(waiter)
  waiter.f, waiter.fn = nil, nil
  local waiters = self.waiters
  if not waiters then
    return
  end
  waiters.n_gone = waiters.n_gone + 1
  if 2 * waiters.n_gone >= waiters.n then
    compact(self, waiters)
  end
end

---From the loop: tell who waits.
function Cell:run()
  self:move("pump", "pumping")
  local waiters = self.waiters
  self.waiters = nil
  for i = 1, waiters and waiters.n or 0 do
    local waiter = waiters[i]
    local fn = waiter.fn
    waiter.fn, waiter.f = nil, nil
    if fn then
      fn()
    end
  end
  local scope = self.scope
  if scope then
    self.scope = nil
    scope:count_down(self)
  end
  if self.is_orphan then
    report_unseen(self)
  end
  if self.pump == "pumping_again" then
    schedule(self)
  else
    self:move("pump", "done")
  end
end

-- ------------------------------------------------------------------ inputs

---These futures are what it waits for; `fn(self, cell)` is called as each settles.
function Cell:add_inputs(futures, n, fn)
  self.inputs, self.n_inputs = futures, n
  self.input_waiters = {}
  for i = 1, n do
    local f = futures[i]
    if f then
      local cell = f.cell
      self.input_waiters[i] = cell:add_waiter(f, function()
        self.input_waiters[i] = nil
        if not self.is_settled then
          fn(self, cell)
        end
      end)
    end
  end
end

---As add_inputs(), and all of them have to succeed, of which `n_missing` have not
---settled: then `fn(self)` is called.  It fails as the first of them does.
function Cell:need_all(futures, n, n_missing, fn)
  self:add_inputs(futures, n, function(_, input)
    if input.outcome ~= "done" then
      self:follow(input)
      return
    end
    input.seen = true
    n_missing = n_missing - 1
    if n_missing == 0 then
      fn(self)
    end
  end)
end

---It needs none of them any more.
function Cell:let_inputs_go()
  if not self.inputs then
    return
  end
  for i, waiter in pairs(self.input_waiters) do
    self.inputs[i].cell:remove_waiter(waiter)
  end
  self.inputs, self.input_waiters = nil, nil
end

local function find_need(self, known)
  if self.verbs.needs_task then
    return self.verbs.needs_task(self, known)
  end
  for i = 1, self.inputs and self.n_inputs or 0 do
    local f = self.inputs[i]
    if f and f.cell:needs_task(known) then
      return true
    end
  end
  return false
end

---Whether nothing but tasks can settle it.
---@param known? table<fork_map.Cell, boolean> of cells that were looked at: they may be
---  the inputs of many
function Cell:needs_task(known)
  if self.is_settled then
    return false
  end
  known = known or {}
  if known[self] == nil then
    known[self] = find_need(self, known)
  end
  return known[self]
end

-- --------------------------------------------------------------- stopping

-- Returns the effect.  What it is made of comes into the list, to be cancelled too.
local function cancel_one(self, grace, list)
  if self.is_settled then
    return false
  end
  local was = self.stop
  self:move("stop", grace == 0 and "forced" or "asked")
  local verb = self.verbs.cancel
  if self.state ~= "waiting" and verb then
    return verb(self, grace) and was == "none"
  end
  local inputs, n = self.inputs, self.n_inputs
  local effect = self:fail(M.new_error("cancelled", "it was cancelled"))
  if self.verbs.cancels_inputs then
    for i = 1, inputs and n or 0 do
      list[#list + 1] = inputs[i] and inputs[i].cell
    end
  end
  return effect
end

---Ask it to end, or force it with `grace` 0; nil: its own grace.
---@return boolean effect
function Cell:cancel(grace)
  local list = {}
  local effect = cancel_one(self, grace, list)
  local i = 1
  while list[i] do -- a loop, as what is derived may be derived from in turn
    cancel_one(list[i], grace, list)
    i = i + 1
  end
  return effect
end

---Its engine was closed.
function Cell:close(err)
  local verb = self.verbs.close
  if verb then
    verb(self, err)
  end
  self:fail(err)
end

---From the loop: its handle was collected, and nobody waits for it.  What it is
---made of is let go, and cancelled only if nobody else has that.
function Cell:drop()
  if self.is_settled or self.waiters or self.verbs.goes_on then
    return
  end
  self.seen = true
  if self.verbs.cancels_inputs then
    self:fail(M.new_error("cancelled", "it was dropped"))
  else
    self:cancel()
  end
end

return M
