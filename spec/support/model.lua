-- SPDX-License-Identifier: MIT
-- A model of futures: what each of them may become, and what holds after every
-- step, whatever was done.  An *entry* stands for one future.  It keeps the cell,
-- which does not keep the handle, so it goes on watching one whose handle was
-- dropped.
--
-- How children, tasks and callbacks behave is in support/model_acts.lua; which
-- steps there are, in support/model_steps.lua.

local async = require "fork_map.async"
local cells = require "fork_map.cell"
local core = require "fork_map.core"
local descriptors = require "support.descriptors"
local fork_map = require "fork_map"
local loops = require "fork_map.loop"
local process = require "support.process"
local sys = require "specs_core"

local MAX_CHILDREN = 4

---@class Model
---@field active table[] entries that have not settled when they were last looked at
---@field settled table[] some that have, to be asked again
---@field n_internal integer futures of the library's own that may be alive
local Model = {}
Model.__index = Model

---Numbers 1 to n, the same for the same seed, whoever else takes random numbers.
local function new_random(seed)
  local x = seed * 0x9E3779B97F4A7C15 ~ 0x2545F4914F6CDD1D
  return function(n)
    x = x ~ x << 13
    x = x ~ x >> 7
    x = x ~ x << 17
    return (x >> 1) % n + 1
  end
end

local function fail(text, ...)
  error("model: " .. text:format(...), 0)
end
Model.fail = fail

local function describe(entry)
  return ("future %d (%s %s)"):format(entry.id, entry.kind, entry.behaviour or "")
end
Model.describe = describe

---The same where what is raised would not be heard.
function Model:fail_later(text, ...)
  self.broken = self.broken or "model: " .. text:format(...)
end

---@param seed integer
---@return Model
function Model.new(seed)
  local self = setmetatable({
    seed = seed, random = new_random(seed), n_entries = 0, n_started = 0,
    cells = setmetatable({}, { __mode = "k" }),
    ended = setmetatable({}, { __mode = "k" }),
    tally = {},
  }, Model)
  self:clear()
  return self
end

---Forget all entries: nothing of them is alive.
function Model:clear()
  self.active, self.settled, self.records = {}, {}, {}
  self.owners, self.n_internal, self.is_releasing = {}, 0, false
  self.unhandled, self.callback_errors = {}, {}
end

local function count_registry()
  local n = 0
  for key in pairs(debug.getregistry()) do
    n = n + (type(key) == "userdata" and 1 or 0)
  end
  return n
end

---An engine of its own, with nothing in it.
function Model:open()
  collectgarbage()
  self.n_fds, self.n_registry = descriptors.count(), count_registry()
  self.engine = fork_map.new {
    max_children = MAX_CHILDREN, grace = 0.05,
    on_warning = function()
      self.is_late = true -- SIGKILL has not ended a child within a second
    end,
    on_unhandled = function(err, why)
      self:hear_unhandled(err, why)
    end,
  }
  self.loop = async.get_loop(self.engine)
  self.n_moves = 0
  cells.set_trace(function(kind, axis, _, to, cell)
    if axis == "state" and to == "settled" then
      if self.ended[cell] then
        self:fail_later("a %s settles twice", kind)
      end
      self.ended[cell] = true
      self.n_moves = self.n_moves + (kind == "signal" and 0 or 1)
    end
  end)
end

---The engine is closed, and everything is given back.
function Model:close()
  self.engine:close()
  self:look()
  self:expect_empty()
  self:expect_heard()
  cells.set_trace(nil)
  self.engine, self.loop, self.scope = nil, nil, nil
  self:clear()
  process.eventually(function()
    collectgarbage()
    return not next(self.cells)
  end, "every cell of a closed engine is collected")
  if descriptors.count() ~= self.n_fds then
    fail("%d descriptors before, %d after", self.n_fds, descriptors.count())
  end
end

function Model:count(what)
  self.tally[what] = (self.tally[what] or 0) + 1
end

-- ----------------------------------------------------------------- entries

---Watch a future.
---@param inputs? table[] entries that it is made of
function Model:add(kind, f, inputs, more)
  self.n_entries = self.n_entries + 1
  local entry = more or {}
  entry.id, entry.kind, entry.f, entry.cell = self.n_entries, kind, f, f.cell
  entry.inputs, entry.rank, entry.n_callbacks = inputs or {}, 0, 0
  self.active[#self.active + 1] = entry
  self.cells[f.cell] = true
  self:count(kind .. (entry.behaviour and " " .. entry.behaviour or ""))
  return entry
end

---A cancel may reach it, and what it is made of.
function Model.ask(entry)
  if entry.asked or entry.cell.is_settled then
    return
  end
  entry.asked = true
  if entry.kind ~= "job" and entry.kind ~= "task" then
    for _, input in ipairs(entry.inputs) do
      Model.ask(input)
    end
  end
end

---Whether it may go on for ever unless it is cancelled.
function Model.may_hang(entry)
  if entry.cell.is_settled then
    return false
  elseif entry.hangs then
    return true
  end
  for _, input in ipairs(entry.inputs) do
    if Model.may_hang(input) then
      return true
    end
  end
  return false
end

---Whether it goes on when its handle is dropped.
function Model.is_kept(entry)
  return entry.n_callbacks > 0 or entry.detached or entry.kind == "task" or entry.scope ~= nil
end

---Nobody has its handle any more, as far as the model goes.
function Model.drop(entry)
  if not entry.f then
    return
  end
  entry.f = nil
  entry.dropped = not Model.is_kept(entry)
end

local function may_be_cancelled(entry)
  return entry.asked or entry.dropped or entry.scope and entry.scope.cancel_error
end

---What has not settled, for a failure.
function Model:list_active()
  local lines = {}
  for i, entry in ipairs(self.active) do
    local cell, inputs = entry.cell, {}
    for k, input in ipairs(entry.inputs) do
      inputs[k] = input.id
    end
    lines[i] = ("\n  %s of {%s}: %s, %s, %s, %d waiters%s%s%s"):format(describe(entry),
      table.concat(inputs, " "), cell.state, cell.stop, cell.pump,
      cell.waiters and cell.waiters.n or 0, entry.f and "" or ", no handle",
      entry.asked and ", asked" or "", Model.is_kept(entry) and ", kept" or "")
  end
  return table.concat(lines)
end

-- ---------------------------------------------------------------- outcomes

---The sum of the numbers in a value.
function Model.weigh(value)
  if type(value) ~= "table" then
    return type(value) == "number" and value or 0
  end
  local sum = 0
  for _, part in pairs(value) do
    sum = sum + Model.weigh(part)
  end
  return sum
end

local function weigh_inputs(entry)
  local sum = 0
  for _, input in ipairs(entry.inputs) do
    sum = sum + Model.weigh(input.cell.values[1])
  end
  return sum
end

local function is_same(a, b)
  if a.outcome ~= b.outcome or a.n ~= b.n or a.err ~= b.err then
    return false
  end
  for i = 1, a.n do
    if not rawequal(a.values[i], b.values[i]) then
      return false
    end
  end
  return true
end

-- It has settled as one of its inputs has.
local function follows(entry, condition)
  for _, input in ipairs(entry.inputs) do
    local cell = input.cell
    if cell.is_settled and is_same(entry.cell, cell) and (not condition or condition(cell)) then
      return true
    end
  end
  return false
end

local function is_failure(cell)
  return cell.outcome ~= "done"
end

-- Whether a failure or value is one that its kind may have, cancels left aside.
local LEGAL = {}

function LEGAL.job(entry, cell)
  if follows(entry, is_failure) then
    return true
  end
  return entry.check(cell, entry, cell.outcome == "done" and weigh_inputs(entry))
end

function LEGAL.task(entry, cell, is_ended)
  if cell.outcome == "done" then
    return cell.values[1] == entry.id
  end
  local err = cell.err
  return err.kind == "error" and err.value == "task" or entry.met[err]
    or is_ended -- by force, and what it closed then has failed
end

function LEGAL.map(entry, cell)
  if cell.outcome == "done" then
    return cell.values[1] == weigh_inputs(entry) + 1
  end
  return follows(entry) or entry.behaviour == "raise" and cell.err.value == "map"
end

function LEGAL.all(entry, cell)
  if cell.outcome ~= "done" then
    return follows(entry, is_failure)
  end
  for key, input in pairs(entry.keys) do
    if not rawequal(cell.values[1][key], input.cell.values[1]) then
      return false
    end
  end
  return true
end

function LEGAL.race(entry)
  return follows(entry)
end

function LEGAL.any(entry, cell)
  if cell.outcome == "done" then
    return follows(entry)
  end
  local is_known = false
  for _, input in ipairs(entry.inputs) do
    local err = input.cell.err
    if not err then
      return false
    end
    is_known = is_known or err.kind == cell.err.kind and err.message == cell.err.message
  end
  return is_known
end

function LEGAL.within(entry, cell)
  return follows(entry) or cell.outcome == "failed" and cell.err.kind == "timeout"
    and entry.is_short
end

local function is_legal(self, entry)
  local cell = entry.cell
  if cell.outcome ~= "done" and getmetatable(cell.err) ~= fork_map.Error then
    return false
  end
  if cell.outcome == "cancelled" and cell.err.kind == "cancelled" and may_be_cancelled(entry) then
    return true
  elseif cell.outcome == "failed" and cell.err.kind == "closed" then
    return self.loop.is_closed == true
  end
  return LEGAL[entry.kind](entry, cell, may_be_cancelled(entry) or self.loop.is_closed)
end

-- It has settled since it was last looked at.
local function note_settled(self, entry)
  local cell = entry.cell
  if not is_legal(self, entry) then
    fail("%s became %s: %s", describe(entry), cell.outcome, tostring(cell.err))
  end
  entry.outcome = { outcome = cell.outcome, n = cell.n, err = cell.err, values = cell.values }
  self:count(cell.outcome)
  if entry.gate then
    sys.close(entry.gate[1])
    sys.close(entry.gate[2])
    entry.gate = nil
  end
  if cell.err then
    local owners = self.owners[cell.err] or {}
    self.owners[cell.err] = owners
    owners[#owners + 1] = entry
  end
  self.settled[#self.settled + 1] = entry
end

---It is what it was when it had settled.
function Model.expect_same(entry)
  local f, was = entry.f, entry.outcome
  if not is_same(entry.cell, was) then
    fail("%s has another outcome", describe(entry))
  elseif f then
    local polled = table.pack(f:poll())
    entry.looked = true
    local is_right = polled[1] == (was.outcome == "done") and f:status() == was.outcome
    if was.outcome == "done" then
      for i = 1, was.n do
        is_right = is_right and rawequal(polled[i + 1], was.values[i])
      end
    end
    if not is_right or polled.n ~= 1 + (was.outcome == "done" and was.n or 1)
      or was.err and polled[2] ~= was.err then
      fail("%s: poll() gives something else", describe(entry))
    end
  end
end

-- ------------------------------------------------------------- after a step

local RANK = { waiting = 1, queued = 2, running = 3, done = 4, failed = 4, cancelled = 4 }

local function look_at(entry)
  local cell, f = entry.cell, entry.f
  local moves = cells.MOVES
  if not (moves.state[cell.state] and moves.stop[cell.stop] and moves.pump[cell.pump])
    or cell.is_settled ~= (cell.state == "settled") then
    fail("%s: %s, %s, %s", describe(entry), cell.state, cell.stop, cell.pump)
  end
  if not f then
    return
  end
  local rank = RANK[f:status()]
  if not rank or rank < entry.rank or (rank == 4) ~= cell.is_settled then
    fail("%s is %s after %d", describe(entry), f:status(), entry.rank)
  elseif not cell.is_settled and select("#", f:poll()) ~= 0 then
    fail("%s has an outcome before it has settled", describe(entry))
  end
  entry.rank = rank
end

---Look at all that is alive, and at the counters.
function Model:look()
  if self.broken then
    error(self.broken, 0)
  end
  local loop, active, n = self.loop, self.active, 0
  local n_jobs = 0
  for i = 1, #active do
    local entry = active[i]
    look_at(entry)
    active[i] = nil
    if entry.cell.is_settled then
      note_settled(self, entry)
      if loop.live[entry.cell] then
        fail("%s has settled and is alive", describe(entry))
      end
    else
      n = n + 1
      active[n] = entry
      n_jobs = n_jobs + (entry.cell.core and 1 or 0)
      if not loop.live[entry.cell] then
        fail("%s is not alive", describe(entry))
      end
    end
  end
  if loop.n_live < n or loop.n_live > n + self.n_internal then
    fail("%d alive, %d counted", n, loop.n_live)
  elseif loop.n_jobs < n_jobs or loop.n_jobs > n_jobs + self.n_internal then
    fail("%d jobs, %d counted", n_jobs, loop.n_jobs)
  elseif loops.current or loops.is_calling or loops.is_scheduling then
    fail("the loop believes that it runs")
  end
  local stats = core.engine_stats(self.engine.core)
  if stats.running > MAX_CHILDREN or stats.running + stats.queued > loop.n_jobs then
    fail("%d run, %d wait, of %d", stats.running, stats.queued, loop.n_jobs)
  end
end

---Some that have settled are as they were; most of them are forgotten.
function Model:look_again(most)
  local settled = self.settled
  while #settled > most do
    local i = self.random(#settled)
    Model.expect_same(settled[i])
    if not self.is_keeping then
      Model.drop(settled[i])
    end
    settled[i] = settled[#settled]
    settled[#settled] = nil
  end
end

-- ---------------------------------------------------------------- unhandled

function Model:hear_unhandled(err, why)
  local heard = self.unhandled[err] or { unseen = 0, callback = 0 }
  self.unhandled[err] = heard
  heard[why] = heard[why] + 1
end

---Every failure that nobody has looked at was reported, no other one.  To be called
---when all handles were dropped and collected.
function Model:expect_heard()
  for _, entry in ipairs(self.settled) do
    Model.drop(entry)
  end
  collectgarbage()
  collectgarbage()
  self.engine:step(0)
  for err, owners in pairs(self.owners) do
    local n_looked = 0
    for _, entry in ipairs(owners) do
      -- That of a nursery may be one more, which nobody has caught.
      n_looked = n_looked + (entry.looked and not entry.cell.callback_scope and 1 or 0)
      if entry.outcome.outcome == "failed" and not entry.cell.seen and err.kind ~= "closed" then
        fail("%s: its failure was lost: %s", describe(entry), tostring(err))
      end
    end
    local heard = self.unhandled[err]
    if heard and heard.unseen > #owners - n_looked then
      fail("%s: reported %d times, and looked at", describe(owners[1]), heard.unseen)
    end
  end
  for text in pairs(self.callback_errors) do
    local n = 0
    for err, heard in pairs(self.unhandled) do
      n = n + (err.value == text and heard.callback or 0)
    end
    if n ~= 1 then
      fail("%s was reported %d times", text, n)
    end
  end
  self.owners, self.unhandled, self.callback_errors = {}, {}, {}
end

-- ----------------------------------------------------------------- the end

-- What a busy machine did not end in time is looked after by the engine, or was
-- left to whoever waits.
local function wait_for_late(self)
  process.eventually(function()
    if self.loop.is_closed then
      sys.wait_any()
    else
      self.engine:step(0)
    end
    return #process.children() == 0
  end, "killed children end")
  self.is_late = false
end

---Nothing goes on.
function Model:expect_empty()
  local loop = self.loop
  if #self.active > 0 then
    fail("%s has not settled", describe(self.active[1]))
  elseif loop.n_live ~= 0 or next(loop.live) or loop.n_jobs ~= 0 then
    fail("%d alive, %d jobs at the end", loop.n_live, loop.n_jobs)
  elseif not loop.is_closed and (loop:is_busy_in_lua() or self.engine:timeout()) then
    fail("there is something to do at the end: %s, in %s s (core: %s)", loop:is_busy_in_lua(),
      self.engine:timeout(), core.timeout(loop.core))
  elseif loop.timers:next() then
    fail("a timer is left")
  end
  if self.is_late then
    wait_for_late(self)
  end
  local stats = core.engine_stats(self.engine.core)
  if stats.running + stats.queued + stats.parked ~= 0 then
    fail("%d run, %d wait, %d are parked at the end", stats.running, stats.queued, stats.parked)
  end
  local children = process.children()
  if #children > 0 then
    fail("process %d is left (%s)", children[1], tostring(process.state(children[1])))
  end
  for _, record in ipairs(self.records) do
    if record.n ~= 1 then
      fail("callback %d of %s was called %d times", record.id, describe(record.entry), record.n)
    end
  end
  self.records = {}
  -- Idle call records, and one for what else the library keeps.
  if count_registry() > self.n_registry + 40 then
    fail("%d objects in the registry, %d before", count_registry(), self.n_registry)
  end
end

return Model
