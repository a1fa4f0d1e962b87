-- SPDX-License-Identifier: MIT
-- Futures made of several: all, any, race, within; and as_completed.

local cells = require "fork_map.cell"
local core = require "fork_map.core"
local futures = require "fork_map.future"
local queues = require "fork_map.queue"
local signals = require "fork_map.signal"

local M = {}

local ALL = { cancels_inputs = true }

-- It settles as soon as one of them has that does not need a task.
local ONE = {
  cancels_inputs = true,
  needs_task = function(cell, known)
    for i = 1, cell.n_inputs do
      local f = cell.inputs[i]
      if f and not f.cell:needs_task(known) then
        return false
      end
    end
    return true
  end,
}

-- The futures of a table in a list, and their keys; or nil and what is wrong.
local function list(name, from, least)
  if type(from) ~= "table" or futures.is_future(from) then
    return nil, ("fork_map.%s: a table of futures is expected, not a %s"):format(name,
      futures.is_future(from) and "future" or type(from))
  end
  local found, keys = {}, {}
  for key, value in pairs(from) do
    if not futures.is_future(value) then
      return nil, ("fork_map.%s: [%s] is not a future but a %s"):format(name, tostring(key),
        type(value))
    end
    keys[#keys + 1], found[#keys + 1] = key, value
  end
  if #keys < least then
    return nil, ("fork_map.%s: at least one future is needed"):format(name)
  end
  return found, keys
end

---A future of a table with the first value of each, under the same keys; it fails
---with the first that fails.
function M.all(loop, from)
  local found, keys = list("all", from, 0)
  if not found then
    return nil, keys
  end
  local cell = cells.new(loop, "all", ALL)
  local function settle()
    local values = {}
    for i, key in ipairs(keys) do
      values[key] = found[i].cell.values[1]
    end
    cell:succeed(1, { values })
  end
  if #found == 0 then
    settle()
  end
  cell:need_all(found, #found, #found, settle)
  return futures.new(cell)
end

-- The first with the others.  It is a copy: the first is the outcome of its future.
local function join_errors(errors)
  if #errors == 1 then
    return errors[1]
  end
  local joined = {}
  for field, value in pairs(errors[1]) do
    joined[field] = value
  end
  joined.others = table.move(errors, 2, #errors, 1, {})
  return setmetatable(joined, core.Error)
end

---A future of the values of the first that succeeds.  When none does it fails with
---the first failure, and has the others in `others`.
function M.any(loop, from)
  local found, text = list("any", from, 1)
  if not found then
    return nil, text
  end
  local cell = cells.new(loop, "any", ONE)
  local errors = {}
  cell:add_inputs(found, #found, function(_, input)
    if input.outcome == "done" then
      cell:follow(input)
      return
    end
    input.seen = true
    errors[#errors + 1] = input.err
    if #errors == #found then
      cell:fail(join_errors(errors))
    end
  end)
  return futures.new(cell)
end

---A future that settles as the first does that settles.
function M.race(loop, from)
  local found, text = list("race", from, 1)
  if not found then
    return nil, text
  end
  local cell = cells.new(loop, "race", ONE)
  cell:add_inputs(found, #found, function(_, input)
    cell:follow(input)
  end)
  return futures.new(cell)
end

-- Time will do.
local WITHIN = { cancels_inputs = true, needs_task = function()
  return false
end }

---A future that settles as `f` does; after `seconds` it fails with kind "timeout",
---and `f` is cancelled.
function M.within(loop, seconds, f)
  local cell = cells.new(loop, "within", WITHIN)
  cell.timer = loop:at(core.now() + seconds, function()
    local inputs = cell.inputs
    if cell:fail(cells.new_error("timeout", ("it took longer than %g s"):format(seconds))) then
      inputs[1].cell.seen = true
      inputs[1].cell:cancel()
    end
  end)
  cell:add_inputs({ f }, 1, function(_, input)
    cell:follow(input)
  end)
  return futures.new(cell)
end

-- ------------------------------------------------------------ as_completed

---@class fork_map.Completed
local Completed = {}
Completed.__index = Completed

-- The next of them settles.
local SIGNAL = signals.new_verbs_of("waiters")

function Completed:__call()
  local state = self.state
  while queues.is_empty(state.queue) do
    if state.n_left == 0 then
      return nil
    end
    signals.wait(state, "change", SIGNAL)
  end
  return queues.pop(state.queue)
end

-- They are not waited for any more.
function Completed:__close()
  local state = self.state
  for waiter, f in pairs(state.waiters) do
    f.cell:remove_waiter(waiter)
  end
  state.waiters, state.n_left, state.queue = {}, 0, queues.new()
end

Completed.__gc = Completed.__close

---`for f in as_completed{…} do`: the futures in the order in which they settle.
function M.as_completed(loop, from)
  local found, text = list("as_completed", from, 0)
  if not found then
    return nil, text
  end
  local state = { loop = loop, n_left = #found, queue = queues.new(), waiters = {} }
  for _, f in ipairs(found) do
    local waiter
    waiter = f.cell:add_waiter(f, function()
      state.waiters[waiter] = nil
      state.n_left = state.n_left - 1
      queues.push(state.queue, f)
      signals.raise(state, "change")
    end)
    state.waiters[waiter] = f -- which may be there twice
  end
  return setmetatable({ state = state }, Completed)
end

return M
