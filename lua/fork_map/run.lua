-- SPDX-License-Identifier: MIT
-- Work on the items of a plan, in workers or in this process, until all have
-- ended; and what verbs make of that.

local core = require "fork_map.core"
local dispatch = require "fork_map.dispatch"
local inline = require "fork_map.inline"
local planning = require "fork_map.plan"
local progress = require "fork_map.progress"

local M = {}

-- Seconds of one wait: hooks of the host run in between.
local PAUSE = 1

-- Hand what emit() sent to the handler, in order.
local function deliver_events(map, n, handler, numbers)
  local _, _, _, events = core.map_tables(map)
  core.map_rewind(map, false, true)
  local batch = table.move(events, 1, n, 1, {})
  for i = 1, n do
    events[i] = nil
  end
  for i = 1, n, 2 do
    if handler then
      local index = batch[i]
      handler(batch[i + 1], numbers and numbers[index] or index)
    end
  end
end
M.deliver_events = deliver_events

local function new_bar(plan)
  local opts = plan.opts
  return progress.new(opts.progress, plan.total or plan.n, plan.workers, opts.name, plan.n_known)
end

---Run a plan in workers until it is over.  `on_log(index)` is called for each
---item that has ended, when `more.log` asks for it.
---@return table results
---@return table errors
---@return table? stopped
---@return fork_map.Error? failure of the whole
local function run_workers(plan, more, on_log)
  local opts = plan.opts
  local map <close> = core.map_new(
    plan.engine.core, plan.prepared, planning.core_opts(plan, more), plan.fn, plan.list)
  local bar <close> = new_bar(plan)
  core.map_start(map)
  local results, errors, log = core.map_tables(map)
  local is_over, done, failed
  repeat
    local logged, events
    is_over, done, failed, logged, events = core.map_step(map, bar and bar.pause or PAUSE)
    if events > 0 then
      deliver_events(map, events, opts.on_event, plan.numbers)
    end
    if logged > 0 then
      core.map_rewind(map, true, false)
      for i = 1, logged do
        if on_log(log[i], results, errors) and not is_over then
          core.map_stop(map, 0)
        end
      end
    end
    if bar then
      bar:update(done, failed)
    end
  until is_over
  if bar then
    bar:finish(done, failed)
  end
  more.n_well = done - failed
  return results, errors, core.map_stopped(map), core.map_failure(map)
end

---The same in this process.
local function run_inline(plan, more, on_log)
  local opts = plan.opts
  local results, errors, done, failed = {}, {}, 0, 0
  local bar <close> = new_bar(plan)
  local stopped, failure = inline.run(plan, function(place, ok, value)
    if ok then
      results[place] = value
    else
      errors[place], failed = value, failed + 1
    end
    done = done + 1
    if bar then
      bar:update(done, failed)
    end
    local ends = on_log and on_log(place, results, errors)
    return ends or (not ok and opts.on_error ~= "collect")
  end)
  if bar then
    bar:finish(done, failed)
  end
  more.n_well = done - failed
  return results, errors, stopped, failure
end

-- Work on a plan's items.  `more` are options for core.map_new(); its n_well is
-- the number of items that ended well afterwards.
function M.run(plan, more, on_log)
  plan.want = more.want
  more.n_well = 0
  if plan.n == 0 then
    return {}, {}
  elseif plan.bound then
    plan.get = M.item_at
    return dispatch.run(plan, more, on_log, new_bar(plan))
  elseif plan.workers > 0 then
    more.log = on_log ~= nil
    return run_workers(plan, more, on_log)
  end
  plan.get = M.item_at
  return run_inline(plan, more, on_log)
end

-- A plan for some of the items, or for other items in their stead.
function M.derive(plan, part)
  return setmetatable(part, { __index = plan })
end

-- The failure of the first item that failed.
function M.find_first(errors)
  local first
  for index in pairs(errors) do
    first = math.min(first or index, index)
  end
  return errors[first]
end

-- The failure that ends a verb: of the whole, or of its first item that failed.
local function find_failure(plan, results, errors, failure)
  local err = failure
  if not err and plan.opts.on_error ~= "collect" then
    err = M.find_first(errors)
  end
  if err then
    err.partial = results
  end
  return err
end

function M.settle(plan, results, errors, stopped, failure)
  results.n = plan.n
  if stopped then
    results.stopped = stopped[1]
  else
    local err = find_failure(plan, results, errors, failure)
    if err then
      return err
    end
  end
  if next(errors) == nil then
    errors = nil
  end
  return nil, results, errors
end

-- What a verb returns beside its value only when there is something.
function M.trim(value, errors, stopped)
  if stopped ~= nil then
    return value, errors or nil, stopped
  elseif errors then
    return value, errors
  end
  return value
end

function M.raise(err)
  if err then
    error(err, 0)
  end
end

-- The item of a list, or of the numbers up to n.
function M.item_at(plan, index)
  if plan.list then
    return plan.list[index]
  end
  return index
end

return M
