-- SPDX-License-Identifier: MIT
-- reduce: segments of a list are folded in workers, or by an executor, and joined here.

local core = require "fork_map.core"
local executors = require "fork_map.executor"
local folds = require "fork_map.fold"
local inline = require "fork_map.inline"
local planning = require "fork_map.plan"
local running = require "fork_map.run"
local travel = require "fork_map.travel"

local M = {}

local derive, raise, run, trim = running.derive, running.raise, running.run, running.trim

-- Segments depend on the list's length alone.
local SEGMENTS_MAX = 1024

local function segment_size(n)
  return math.max(1, (n + SEGMENTS_MAX - 1) // SEGMENTS_MAX)
end

-- A function that gives a fresh copy of `init`, or nil and what is wrong.
local function copier(init)
  if type(init) ~= "table" then
    return function()
      return init
    end
  end
  local bytes, path, reason = core.encode("lua", init)
  if not bytes then
    path = path:gsub("^result", "init")
    return nil, ("fork_map.reduce: %s cannot be copied: %s"):format(path, reason)
  end
  return function()
    return (core.decode("lua", bytes))
  end
end

-- A result that cannot cross is that of a whole segment, not of an item.
local function is_of_segment(err)
  return err.kind == "encode" or err.kind == "protocol" or err.limit == "result"
end

-- The item of the segment in which this failure was; nil when it was in none.
local function take_index(folding, segment, err)
  local index = err.detail or segment.first
  err.index, err.detail = index, nil
  if folding.errors[index] or is_of_segment(err) then
    return nil
  end
  return index
end

-- What became of a segment in a worker: its failure and the item that this was in, or
-- nil, nil and what was folded.
local function judge_worker(folding, segment, err, value)
  if not err then
    return nil, nil, value
  end
  err.detail = err.detail or folding.at and folding.at[1]
  return err, take_index(folding, segment, err)
end

-- The same of a call of an executor, whose item nobody knows if there is no answer.
local function judge_call(_, segment, err, answer)
  local index
  if err then
    err.index, err.path = nil, err.path and err.path:gsub("^result%.acc", "result")
    return err
  end
  err, index = folds.read(segment, answer)
  if index then
    table.insert(segment.skip, index)
  end
  return err, index, not err and answer.acc or nil
end

-- Fold the segments in `todo`; those in which an item died are left in the list
-- that comes back.
---@return table again
---@return table? stopped
---@return fork_map.Error? failure
local function fold_once(plan, folding, todo, deadline)
  local opts = plan.opts
  if deadline then
    local err = inline.find_late(plan, deadline)
    if err then
      return todo, nil, err
    end
    opts = setmetatable({ deadline = deadline - core.now() }, { __index = opts })
  end
  local part = derive(plan, { n = #todo, list = todo, fn = folding.fold, opts = opts })
  local again = {}
  local _, _, stopped, failure = run(part, { want = "value" }, function(place, got, bad)
    local segment = todo[place]
    local err, index, value = folding.judge(folding, segment, bad[place], got[place])
    if not err then
      segment.is_folded, segment.value = true, value
      return
    elseif index then
      folding.errors[index] = err
      again[#again + 1] = segment
    else
      folding.fatal = folding.fatal or err
    end
    -- That a call has given an answer does not tell the executor that it failed.
    return plan.bound and (folding.fatal or opts.on_error ~= "collect")
  end)
  return again, stopped, failure or folding.fatal
end

local function fold_all(plan, folding)
  local collects = plan.opts.on_error == "collect"
  local deadline = inline.get_deadline(plan)
  local todo = folding.segments
  local stopped, failure
  repeat
    todo, stopped, failure = fold_once(plan, folding, todo, deadline)
    if failure or (not collects and not stopped and next(folding.errors)) then
      raise(failure or running.find_first(folding.errors))
    end
  until #todo == 0 or stopped
  return stopped
end

local function make_segments(n)
  local size, segments = segment_size(n), {}
  for first = 1, n, size do
    segments[#segments + 1] = { first = first, last = math.min(n, first + size - 1) }
  end
  return segments
end

-- How workers, or this process, fold.
local function by_workers(plan, step, copy)
  local errors, at = {}, plan.workers == 0 and {} or nil
  return {
    errors = errors, at = at, judge = judge_worker, segments = make_segments(plan.n),
    fold = function(segment)
      return core.fold(step, copy(), plan.list, segment.first, segment.last, errors, at)
    end,
  }
end

-- How an executor does; or nil and what is wrong.
local function by_executor(plan, step, copy)
  local segments, kind, text = make_segments(plan.n), nil, nil
  local fold = "fork_map.fold:call"
  if executors.is_here(plan.bound) then
    function fold(task)
      return folds.run(step, task)
    end
  else
    kind, text = travel.pack(step)
    if not kind then
      return nil, "fork_map.reduce: " .. text
    end
  end
  for i, segment in ipairs(segments) do
    local task = folds.new_task(plan.list, segment.first, segment.last, copy())
    task.kind, task.text = kind, text
    segments[i] = task
  end
  return { errors = {}, judge = judge_call, segments = segments, fold = fold }
end

-- Join what the segments gave, in their order.
local function join(segments, combine, copy)
  local acc, has_begun
  for _, segment in ipairs(segments) do
    if segment.is_folded then
      if has_begun then
        acc = combine(acc, segment.value)
      else
        acc, has_begun = segment.value, true
      end
    end
  end
  if has_begun then
    return acc
  end
  return copy()
end

---@return string? text what is wrong
---@return any accumulated
---@return table? errors
---@return any stopped the value of stop()
function M.reduce(target, list, step, combine, init, opts)
  local plan, text = planning.make("reduce", target, list, step, opts)
  if not plan then
    return text
  elseif type(combine) ~= "function" then
    return ("fork_map.reduce: combine must be a function, not a %s"):format(type(combine))
  end
  local copy
  copy, text = copier(init)
  if not copy then
    return text
  end
  local folding
  folding, text = (plan.bound and by_executor or by_workers)(plan, step, copy)
  if not folding then
    return text
  end
  local stopped, errors = fold_all(plan, folding), folding.errors
  local acc = join(folding.segments, combine, copy)
  return nil, trim(acc, next(errors) and errors, stopped and stopped[1])
end

return M
