-- SPDX-License-Identifier: MIT
-- The steps of support/model.lua: everything that a host may do with futures, and
-- how an episode of steps ends.

local Model = require "support.model"
local acts = require "support.model_acts"
local queues = require "fork_map.queue"
local sys = require "specs_core"

local M = {}

-- Futures that have not settled; with more of them some must end first.
local ACTIVE_MOST = 40

-- Some that have settled are kept to be asked again.
local SETTLED_MOST = 24

-- Seconds that anything may take that does not hang.
local PATIENCE = 60

-- --------------------------------------------------------------- choosing

local function any_active(self, condition)
  local active = self.active
  for _ = 1, 4 do
    local entry = active[self.random(math.max(1, #active))]
    if entry and entry.f and (not condition or condition(entry)) then
      return entry
    end
  end
end

local function any_settled(self)
  local entry = self.settled[self.random(math.max(1, #self.settled))]
  return entry and entry.f and entry
end

local function any_entry(self)
  return self.random(4) == 1 and any_settled(self) or any_active(self)
end

-- Up to `most` of them, which may be the same.
local function some(self, most)
  local list = {}
  for _ = 1, self.random(most) do
    list[#list + 1] = any_entry(self)
  end
  return list
end

local function handles(entries)
  local list = {}
  for i, entry in ipairs(entries) do
    list[i] = entry.f
  end
  return list
end

-- Run `fn(...)`, which the end of the nursery around it may end.
local function in_scope(self, fn, ...)
  local ok, err = pcall(fn, ...)
  if ok then
    return err
  end
  local scope = self.scope
  if not (scope and scope.cancel_error and err == scope.cancel_error) then
    error(err, 0)
  end
  return nil
end

-- ------------------------------------------------------------------ making

local function spawn(self, inputs)
  local nursery = self.nursery
  if nursery and not self.scope.is_closed and self.random(3) > 1 then
    acts.spawn(self, function(...)
      return nursery:spawn(...)
    end, inputs, self.scope)
    return
  end
  acts.spawn(self, function(...)
    return self.engine:spawn(...)
  end, inputs)
end

local function task(self)
  local nursery, targets = self.nursery, some(self, 2)
  if nursery and not self.scope.is_closed and self.random(2) == 1 then
    acts.start_task(self, function(fn)
      return nursery:start(fn)
    end, targets, self.scope)
    return
  end
  acts.start_task(self, function(fn)
    return self.engine:task(fn)
  end, targets)
end

local function map(self)
  local source = any_entry(self)
  if source then
    local raises = self.random(5) == 1
    self:add("map", source.f:map(function(value)
      if raises then
        error("map", 0)
      end
      return Model.weigh(value) + 1
    end), { source }, { behaviour = raises and "raise" or nil })
  end
end

local function combine(name)
  return function(self)
    local inputs = some(self, 3)
    if #inputs > 0 then
      self:add(name, self.engine[name](self.engine, handles(inputs)), inputs, { keys = inputs })
    end
  end
end

local function within(self)
  local input = any_entry(self)
  if input then
    local is_short = self.random(2) == 1
    if is_short then
      Model.ask(input) -- its time may be over in any turn
    end
    self:add("within", self.engine:within(is_short and self.random(5) / 1000 or 1000, input.f),
      { input }, { is_short = is_short })
  end
end

-- ----------------------------------------------------------------- steering

-- The moment that `entry` is asked, what becomes of it is known of all but jobs.
local function cancel(entry, grace)
  local cell = entry.cell
  local was, was_settled = cell.stop, cell.is_settled
  Model.ask(entry)
  local effect = entry.f:cancel(grace)
  local may_be_late = cell.core and not cell.is_settled
  if effect and (was_settled or was ~= "none")
    or not effect and not was_settled and was == "none" and not may_be_late then
    Model.fail("%s: cancel() gives %s", Model.describe(entry), tostring(effect))
  end
end

local function any_grace(self)
  local grace = self.random(3)
  if grace > 1 then
    return (grace - 2) * self.random(10) / 1000
  end
end

local function cancel_any(self)
  local entry = any_entry(self)
  if entry then
    cancel(entry, any_grace(self))
  end
end

local function drop(self)
  local entry = any_entry(self)
  if entry and not (Model.is_kept(entry) and Model.may_hang(entry)) then
    Model.drop(entry)
  end
end

local function detach(self)
  local entry = any_active(self)
  if entry and self.random(3) == 1 then
    entry.detached = true
    assert(entry.f:detach() == entry.f)
  end
end

local function on_settle(self)
  local entry = any_entry(self)
  if entry then
    acts.on_settle(self, entry, entry.f)
  end
end

local function open_gate(self)
  local entry = any_active(self, function(entry)
    return entry.gate
  end)
  if entry then
    acts.open_gate(entry)
  end
end

local function adopt(self)
  local entry = self.nursery and not self.scope.is_closed and any_active(self)
  if not entry then
    return
  end
  local is_free = not entry.cell.callback_scope
  local ok, err = pcall(self.nursery.adopt, self.nursery, entry.f)
  if ok ~= is_free then
    Model.fail("%s: adopt(): %s", Model.describe(entry), tostring(err))
  elseif ok then
    Model.ask(entry) -- when another one in the nursery fails
    entry.scope = self.scope
  end
end

-- ------------------------------------------------------------------ looking

local function wait(self, seconds)
  local entry = any_entry(self)
  if entry then
    local settled = in_scope(self, entry.f.wait, entry.f, seconds)
    if settled ~= nil and settled ~= entry.cell.is_settled then
      Model.fail("%s: wait() gives %s", Model.describe(entry), tostring(settled))
    end
  end
end

local function await(self)
  local entry = any_entry(self)
  if not entry then
    return
  end
  local was_settled = entry.cell.is_settled
  local result = table.pack(pcall(entry.f.await, entry.f, 0.002))
  local cell, err = entry.cell, result[2]
  local is_right
  if cell.is_settled and (result[1] or err == cell.err) then
    entry.looked = true
    is_right = result[1] == (cell.outcome == "done") and (not result[1] or result.n == cell.n + 1
      and rawequal(result[2], cell.values[1]))
  else
    is_right = not was_settled and not result[1] and (err.kind == "timeout"
      or self.scope and err == self.scope.cancel_error)
  end
  if not is_right then
    Model.fail("%s: await() gives %s", Model.describe(entry), tostring(err))
  end
end

local function step(self, seconds)
  local before = self.n_moves
  local n = self.engine:step(seconds)
  if n ~= self.n_moves - before then
    Model.fail("step() gives %d when %d have settled", n, self.n_moves - before)
  end
end

local function ask_again(self)
  local entry = any_settled(self)
  if entry then
    Model.expect_same(entry)
  end
end

local function poll_fd(self)
  local entry = any_entry(self)
  if entry then
    assert(entry.f:events() == "r")
    local fd, seconds = entry.f:pollfd(), entry.f:timeout()
    assert(not fd == not self.engine:pollfd() and (not seconds or seconds >= 0))
    if entry.f:usage() and not entry.cell.is_settled then
      Model.fail("%s has usage before it has settled", Model.describe(entry))
    end
  end
end

local function as_completed(self)
  local inputs = some(self, 3)
  local settled = {}
  for _, entry in ipairs(inputs) do
    if entry.cell.is_settled then
      settled[#settled + 1] = entry.f
    end
  end
  local n = 0
  for f in self.engine:as_completed(settled) do
    n = n + 1
    assert(f.cell.is_settled)
  end
  if n ~= #settled then
    Model.fail("as_completed() gives %d of %d", n, #settled)
  end
  -- One that is dropped in the middle lets go of them.
  local iterator = #inputs > 0 and self.engine:as_completed(handles(inputs))
  return iterator
end

local function run(self)
  local targets = handles(some(self, 2))
  local value = in_scope(self, self.engine.run, self.engine, function()
    for _, f in ipairs(targets) do
      f:wait(0.001)
    end
    self.engine:yield()
    return "ran"
  end)
  if value ~= "ran" and not (self.scope and self.scope.cancel_error) then
    Model.fail("run() gives %s", tostring(value))
  end
end

M.STEPS = {
  { name = "spawn", weight = 14, makes = true, act = function(self) spawn(self, {}) end },
  { name = "spawn with futures", weight = 6, makes = true, act = function(self)
    spawn(self, some(self, 3))
  end },
  { name = "task", weight = 10, makes = true, act = task },
  { name = "map", weight = 4, makes = true, act = map },
  { name = "all", weight = 3, makes = true, act = combine "all" },
  { name = "any", weight = 3, makes = true, act = combine "any" },
  { name = "race", weight = 3, makes = true, act = combine "race" },
  { name = "within", weight = 4, makes = true, act = within },
  { name = "cancel", weight = 7, act = cancel_any },
  { name = "drop", weight = 8, act = drop },
  { name = "detach", weight = 2, act = detach },
  { name = "on_settle", weight = 8, act = on_settle },
  { name = "gate", weight = 10, act = open_gate },
  { name = "adopt", weight = 2, act = adopt },
  { name = "wait(0)", weight = 6, act = function(self) wait(self, 0) end },
  { name = "wait", weight = 4, act = function(self) wait(self, 0.001) end },
  { name = "await", weight = 6, act = await },
  { name = "step(0)", weight = 14, act = function(self) step(self, 0) end },
  { name = "step", weight = 10, act = function(self) step(self, 0.001) end },
  { name = "ask again", weight = 6, act = ask_again },
  { name = "pollfd", weight = 2, act = poll_fd },
  { name = "as_completed", weight = 2, act = as_completed },
  { name = "run", weight = 2, act = run },
  { name = "collect", weight = 2, act = function() collectgarbage() end },
}

---One step, and a look at everything.
function M.step(self)
  local is_full = #self.active > ACTIVE_MOST
  local kind = acts.choose(self, M.STEPS, function(kind)
    return not (is_full and kind.makes)
  end)
  self.last_step = kind.name
  kind.act(self)
  self:look()
  self:look_again(SETTLED_MOST)
  if is_full and self.random(4) == 1 then
    M.release(self)
  end
end

-- ------------------------------------------------------------------ ending

---What would not end by itself is cancelled.
function M.release(self)
  for _, entry in ipairs(table.move(self.active, 1, #self.active, 1, {})) do
    acts.open_gate(entry)
    if entry.f and Model.may_hang(entry) then
      Model.ask(entry)
      entry.f:cancel(any_grace(self))
    end
  end
end

local function cancel_all(self)
  for _, entry in ipairs(table.move(self.active, 1, #self.active, 1, {})) do
    if entry.f then
      cancel(entry, any_grace(self))
    end
  end
end

local function drop_all(self)
  for _, entry in ipairs(table.move(self.active, 1, #self.active, 1, {})) do
    if entry.f and Model.is_kept(entry) and Model.may_hang(entry) then
      cancel(entry, any_grace(self))
    end
    acts.open_gate(entry)
    Model.drop(entry)
  end
end

-- Overwrite what calls have left on the stack, where the collector sees it.
local scrub = assert(load("local " .. ("a,"):rep(199) .. "a = nil"))

-- Step until `condition` holds.
local function drain(self, condition, releases)
  local deadline = sys.now() + PATIENCE
  while not condition() do
    if releases then
      M.release(self)
    end
    collectgarbage()
    in_scope(self, step, self, 0.005)
    self:look()
    if sys.now() > deadline then
      Model.fail("nothing ends:%s", self:list_active())
    end
  end
end

---Have everything settle, one way or another, and see that nothing is left.
function M.finish(self, how)
  self.is_releasing = true
  if how == "close" then
    self:close()
    return
  elseif how == "cancel" then
    cancel_all(self)
  elseif how == "drop" then
    drop_all(self)
  end
  scrub()
  drain(self, function()
    return self.loop.n_live == 0 and not self.loop:is_busy_in_lua()
  end, how ~= "drop")
  self:look()
  self:expect_empty()
  self:expect_heard()
  self:look_again(0)
  self.is_releasing = false
end

-- What a nursery is left with: all in it have settled.
local function expect_left(self, scope, ok, err)
  self:look()
  for _, entry in ipairs(self.active) do
    if entry.scope == scope then
      Model.fail("%s outlives its nursery", Model.describe(entry))
    end
  end
  if scope.n_open ~= 0 or next(scope.futures) or scope.context.scope ~= nil then
    Model.fail("%d are in a nursery that was left", scope.n_open)
  elseif not ok and (type(err) ~= "table" or not err.kind) then
    error(err, 0)
  end
end

-- Every future of the nursery comes once.
local function take_results(self, nursery, scope)
  local seen = {}
  for f in nursery:results() do
    if seen[f.cell] or not f.cell.is_settled then
      Model.fail("results() gives a %s twice, or too early", f.cell.kind)
    end
    seen[f.cell] = true
  end
  self:look()
  if nursery:count() ~= 0 or not queues.is_empty(scope.queue) then
    Model.fail("results() ends early")
  end
end

---An episode of so many steps inside a nursery.
function M.in_nursery(self, n)
  local scope
  local opts = {
    on_error = self.random(2) == 1 and "keep" or nil,
    deadline = self.random(4) == 1 and 0.05 or nil,
    max_active = self.random(2) == 1 and self.random(3) or nil,
  }
  local ok, err = pcall(self.engine.nursery, self.engine, function(nursery)
    scope = nursery.scope
    self.nursery, self.scope = nursery, scope
    for _ = 1, n do
      if scope.cancel_error then
        break
      end
      self.n_steps = self.n_steps + 1
      M.step(self)
    end
    self.nursery = nil
    self.is_releasing = true
    if self.random(3) == 1 then
      for _, entry in ipairs(self.active) do
        if entry.scope == scope then
          Model.ask(entry)
        end
      end
      nursery:cancel(any_grace(self))
    end
    scrub()
    drain(self, function()
      return nursery:count() == 0 or self.random(20) == 1
    end, true)
    scrub()
    drain(self, function()
      for _, entry in ipairs(self.active) do
        if Model.may_hang(entry) or entry.gate and not entry.is_open then
          return false
        end
      end
      return true
    end, true)
    if self.random(2) == 1 then
      in_scope(self, take_results, self, nursery, scope)
    end
    if self.random(4) == 1 then
      error("body", 0)
    end
  end, opts)
  if not ok and type(err) == "string" and err ~= "body" then
    error(err, 0) -- of the model
  end
  expect_left(self, scope, ok or err == "body", err)
  self.nursery, self.scope, self.is_releasing = nil, nil, false
end

local ENDS = { "cancel", "drop", "wait", "close" }

---So many steps, in episodes.
function M.run(self, n)
  self.n_steps = 0
  while self.n_steps < n do
    if not self.engine then
      self:open()
    end
    local n_here = math.min(n - self.n_steps, 50 + self.random(250))
    if self.random(3) == 1 then
      M.in_nursery(self, n_here)
    else
      for _ = 1, n_here do
        self.n_steps = self.n_steps + 1
        M.step(self)
      end
    end
    M.finish(self, self.n_steps < n and ENDS[self.random(#ENDS)] or "close")
  end
end

return M
