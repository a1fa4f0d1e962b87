-- SPDX-License-Identifier: MIT
-- What children, tasks and callbacks of support/model.lua do, and what may
-- become of that.

local Model = require "support.model"
local sys = require "specs_core"

local M = {}

-- ---------------------------------------------------------------- children
-- `check(cell, entry, weight)` tells whether it may have settled so; `weight` is
-- that of its arguments.  A child that hangs has no outcome but a cancel.

local function never()
  return false
end

local function check_values(cell, entry, weight)
  return cell.outcome == "done" and cell.n == 4 and cell.values[1] == weight + 1
    and cell.values[2] == "v" .. entry.id and cell.values[3] == nil and cell.values[4] == false
end

-- The values that every child returns which returns.
local function finish(id, ...)
  return Model.weigh({ ... }) + 1, "v" .. id, nil, false
end

local function is_failure(kind, field, value)
  return function(cell)
    return cell.outcome == "failed" and cell.err.kind == kind and cell.err[field] == value
  end
end

M.CHILDREN = {
  { name = "value", weight = 10, is_quick = true, check = check_values, run = finish },
  { name = "nap", weight = 4, is_quick = true, check = check_values, run = function(...)
    sys.sleep(0.003)
    return finish(...)
  end },
  { name = "gate", weight = 6, has_gate = true, check = check_values, run = function(id, gate, ...)
    sys.read(gate)
    return finish(id, ...)
  end },
  { name = "raise", weight = 3, is_quick = true, check = is_failure("error", "value", "child"),
    run = function()
      error("child", 0)
    end },
  { name = "exit", weight = 2, is_quick = true, check = is_failure("exit", "exit_code", 3),
    run = function()
      os.exit(3)
    end },
  { name = "kill", weight = 2, is_quick = true, check = is_failure("signal", "signal", 9),
    run = function()
      sys.kill(sys.getpid(), 9)
    end },
  { name = "hang", weight = 2, hangs = true, check = never, run = function()
    sys.sleep(1000)
  end },
  { name = "stubborn", weight = 1, hangs = true, check = never, run = function()
    sys.handle(15, "ignore")
    sys.sleep(1000)
  end },
}

local function choose(self, list, condition)
  local sum = 0
  for _, kind in ipairs(list) do
    sum = sum + ((not condition or condition(kind)) and kind.weight or 0)
  end
  local at = self.random(sum)
  for _, kind in ipairs(list) do
    if not condition or condition(kind) then
      at = at - kind.weight
      if at <= 0 then
        return kind
      end
    end
  end
end
M.choose = choose

local function is_quick(kind)
  return kind.is_quick
end

---Spawn a child.
---@param spawn fun(fn: function, ...): fork_map.Future
---@param inputs table[] entries whose futures are its further arguments
function M.spawn(self, spawn, inputs, scope, is_quick_one)
  local kind = choose(self, M.CHILDREN, (self.is_releasing or is_quick_one) and is_quick)
  local args, gate = { self.n_entries + 1 }, nil
  if kind.has_gate then
    gate = { sys.pipe() }
    args[2] = gate[1]
  end
  local n = #args
  for i, input in ipairs(inputs) do
    args[n + i] = input.f
  end
  return self:add("job", spawn(kind.run, table.unpack(args)), inputs, {
    behaviour = kind.name, check = kind.check, gate = gate, hangs = kind.hangs, scope = scope,
  })
end

---Let a child go on that waits for that.
function M.open_gate(entry)
  if entry.gate and not entry.is_open then
    entry.is_open = true
    sys.write(entry.gate[2], "x")
  end
end

-- ------------------------------------------------------------------- tasks

-- Counts futures that the library makes for itself.
local function internal(self)
  self.n_internal = self.n_internal + 1
  return setmetatable({}, { __close = function()
    self.n_internal = self.n_internal - 1
  end })
end

local function await(entry, f, is_protected)
  local ok, err = pcall(f.await, f)
  if not ok then
    if type(err) ~= "table" then
      error(err, 0)
    end
    entry.met[err] = true
    if not is_protected then
      error(err, 0)
    end
  end
end

-- What a task may do in one of its steps: `act(model, entry, op)`.
M.OPS = {
  { name = "sleep", weight = 4, act = function(self, _, op)
    self.engine:sleep(op.number / 1000)
  end },
  { name = "yield", weight = 4, act = function(self)
    self.engine:yield()
  end },
  { name = "bare yield", weight = 1, act = function()
    coroutine.yield(1, 2)
  end },
  { name = "await", weight = 4, needs_target = true, act = function(_, entry, op)
    await(entry, op.target)
  end },
  { name = "try", weight = 4, needs_target = true, act = function(_, entry, op)
    await(entry, op.target, true)
  end },
  { name = "wait", weight = 3, needs_target = true, act = function(_, entry, op)
    local ok, err = pcall(op.target.wait, op.target, op.number / 1000)
    if not ok then
      entry.met[err] = true
    end
  end },
  { name = "spawn", weight = 3, act = function(self, entry)
    local made = M.spawn(self, function(...)
      return self.engine:spawn(...)
    end, {}, nil, true)
    await(entry, made.f, true)
  end },
  { name = "call", weight = 2, act = function(self, entry)
    local _ <close> = internal(self)
    local ok, value = pcall(self.engine, function()
      return "called"
    end)
    if not ok then
      entry.met[value] = true
    elseif value ~= "called" then
      self:fail_later("a call in a task gives %s", tostring(value))
    end
  end },
  { name = "close", weight = 2, act = function(self, entry)
    local made = M.spawn(self, function(...)
      return self.engine:spawn(...)
    end, {}, nil, true)
    made.asked = true
    local _ <close> = made.f
    await(entry, made.f, true)
  end },
  { name = "nursery", weight = 2, act = function(self, entry)
    local ok, err = pcall(self.engine.nursery, self.engine, function(n)
      local made = {}
      for i = 1, 2 do
        made[i] = M.spawn(self, function(...)
          return n:spawn(...)
        end, {}, nil, true)
        made[i].asked = true
      end
      self.engine:yield()
      await(entry, made[1].f, true)
    end)
    if not ok then
      entry.met[err] = true
    end
  end },
  { name = "below", weight = 1, needs_target = true, act = function(_, entry, op)
    -- Where it cannot be suspended.
    local ok, err = pcall(table.sort, { 1, 2 }, function(a, b)
      op.target:wait(0)
      return a < b
    end)
    if not ok then
      entry.met[err] = true
    end
  end },
  { name = "fail", weight = 1, act = function()
    error("task", 0)
  end },
  { name = "hang", weight = 1, hangs = true, act = function(self)
    self.engine:sleep(1000)
  end },
  { name = "defy", weight = 1, hangs = true, act = function(self, _, op)
    repeat
      pcall(self.engine.sleep, self.engine, 1000)
      coroutine.yield()
    until op.is_over
  end },
}

local function is_short(op)
  return not op.hangs
end

---Start a task with a program of a few steps.
---@param targets table[] entries that it may wait for
function M.start_task(self, start, targets, scope)
  local entry = { met = {}, scope = scope }
  local program, inputs = {}, {}
  for i = 1, self.random(4) - 1 do
    local target = #targets > 0 and targets[self.random(#targets)]
    local op = choose(self, M.OPS, function(op)
      return (target or not op.needs_target) and (not self.is_releasing or is_short(op))
    end)
    program[i] = { op = op, target = target and target.f, number = self.random(5) }
    entry.hangs = entry.hangs or op.hangs
    inputs[#inputs + 1] = target or nil
  end
  local f = start(function()
    for _, step in ipairs(program) do
      step.op.act(self, entry, step)
    end
    return entry.id
  end)
  return self:add("task", f, inputs, entry)
end

-- --------------------------------------------------------------- callbacks

local function any_of(self, list)
  return list[self.random(math.max(1, #list))]
end

-- What a callback may do: `act(model, entry, record)`.
local REACTIONS = {
  { name = "nothing", weight = 6, act = function() end },
  { name = "spawn", weight = 2, act = function(self)
    M.spawn(self, function(...)
      return self.engine:spawn(...)
    end, {})
  end },
  { name = "cancel", weight = 2, act = function(self)
    local other = any_of(self, self.active)
    if other and other.f then
      Model.ask(other)
      other.f:cancel(self.random(2) == 1 and 0 or nil)
    end
  end },
  { name = "drop", weight = 2, act = function(self)
    local other = any_of(self, self.active)
    if other and not Model.may_hang(other) then
      Model.drop(other)
    end
  end },
  { name = "poll", weight = 2, act = function(self, entry, record)
    local ok = record.f:poll()
    entry.looked = true
    if ok ~= (entry.cell.outcome == "done") or not record.f:wait(0) then
      self:fail_later("%s: its callback sees something else", Model.describe(entry))
    end
  end },
  { name = "on_settle", weight = 2, act = function(self, entry, record)
    M.on_settle(self, entry, record.f)
  end },
  { name = "another", weight = 2, act = function(self)
    local other = any_of(self, self.active)
    if other and other.f then
      M.on_settle(self, other, other.f)
    end
  end },
  { name = "map", weight = 1, act = function(self, entry, record)
    self:add("map", record.f:map(function(value)
      return Model.weigh(value) + 1
    end), { entry })
  end },
  { name = "wait", weight = 1, act = function(self)
    local other = any_of(self, self.active)
    if other and other.f and not other.cell.is_settled and pcall(other.f.wait, other.f, 1) then
      self:fail_later("%s: a callback could wait", Model.describe(other))
    end
    if pcall(self.engine.step, self.engine, 0) then
      self:fail_later("a callback could step the engine")
    end
  end },
  { name = "raise", weight = 1, raises = true, act = function(self, entry, record)
    local text = "callback " .. record.id
    self.callback_errors[text] = not entry.cell.callback_scope or nil -- else a nursery has it
    error(text, 0)
  end },
}

---Register a callback that does one of these.
function M.on_settle(self, entry, f)
  local record = { entry = entry, n = 0, id = #self.records + 1 }
  local kind = choose(self, REACTIONS, function(kind)
    return not (kind.raises and entry.scope)
  end)
  entry.n_callbacks = entry.n_callbacks + 1
  record.number = entry.n_callbacks
  self.records[record.id] = record
  f:on_settle(function(given)
    record.n, record.f = record.n + 1, given
    entry.n_called = (entry.n_called or 0) + 1
    if not entry.cell.is_settled or given.cell ~= entry.cell or record.n > 1 then
      self:fail_later("callback %d of %s: called %d times", record.id, Model.describe(entry),
        record.n)
    elseif entry.n_called ~= record.number then
      self:fail_later("callback %d of %s is not the next one", record.id, Model.describe(entry))
    end
    local ok, err = pcall(kind.act, self, entry, record)
    record.f = nil
    if not ok and not (self.loop.is_closed and err.kind == "closed") then
      if not kind.raises then
        self:fail_later("callback %s: %s", kind.name, tostring(err))
      end
      error(err, 0)
    end
  end)
end

return M
