-- SPDX-License-Identifier: MIT
-- Verbs over many items that come back with all of it: map, each, reduce, find.

local core = require "fork_map.core"
local inline = require "fork_map.inline"
local journal = require "fork_map.journal"
local planning = require "fork_map.plan"
local progress = require "fork_map.progress"

local M = {}

-- Seconds of one wait: hooks of the host run in between.
local PAUSE = 1

-- Hand what emit() sent to the handler, in order.
local function deliver_events(map, n, handler)
  local _, _, _, events = core.map_tables(map)
  core.map_rewind(map, false, true)
  local batch = table.move(events, 1, n, 1, {})
  for i = 1, n do
    events[i] = nil
  end
  for i = 1, n, 2 do
    if handler then
      handler(batch[i + 1], batch[i])
    end
  end
end
M.deliver_events = deliver_events

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
  local bar <close> = progress.new(opts.progress, plan.n, plan.workers, opts.name)
  core.map_start(map)
  local results, errors, log = core.map_tables(map)
  local done, failed = 0, 0
  local is_over
  repeat
    local logged, events
    is_over, done, failed, logged, events = core.map_step(map, bar and bar.pause or PAUSE)
    if events > 0 then
      deliver_events(map, events, opts.on_event)
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
  return results, errors, core.map_stopped(map), core.map_failure(map)
end

---The same in this process.
local function run_inline(plan, _, on_log)
  local opts = plan.opts
  local results, errors, done, failed = {}, {}, 0, 0
  local bar <close> = progress.new(opts.progress, plan.n, 0, opts.name)
  local stopped, failure = inline.run(plan, function(index, ok, value)
    if ok then
      results[index] = value
    else
      errors[index], failed = value, failed + 1
    end
    done = done + 1
    if bar then
      bar:update(done, failed)
    end
    local ends = on_log and on_log(index, results, errors)
    return ends or (not ok and opts.on_error ~= "collect")
  end)
  if bar then
    bar:finish(done, failed)
  end
  return results, errors, stopped, failure
end

local function run(plan, more, on_log)
  plan.want = more.want
  if plan.workers > 0 then
    more.log = on_log ~= nil
    return run_workers(plan, more, on_log)
  end
  local list = plan.list
  plan.get = list and function(index)
    return list[index]
  end or function(index)
    return index
  end
  return run_inline(plan, more, on_log)
end

-- The failure that ends a verb: of the whole, or of its first item that failed.
local function find_failure(plan, results, errors, failure)
  local err = failure
  if not err and plan.opts.on_error ~= "collect" then
    local first
    for index in pairs(errors) do
      first = math.min(first or index, index)
    end
    err = errors[first]
  end
  if err then
    err.partial = results
  end
  return err
end

-- Items whose results a journal has are not worked on; the others are, under
-- numbers of their own.
local function run_with_journal(plan)
  local opts = plan.opts
  local book <close> = journal.open(opts.journal)
  local known, todo = {}, {}
  local list, fn = plan.list, plan.fn
  for index = 1, plan.n do
    local is_known, value = book:find(index, list and list[index] or index)
    if is_known then
      known[index] = { value }
    else
      todo[#todo + 1] = index
    end
  end
  local part = setmetatable({
    n = #todo, list = todo,
    fn = function(index)
      return fn(list and list[index] or index, index)
    end,
  }, { __index = plan })
  local results, errors, stopped, failure = run(part, { want = "value" }, function(k, got, bad)
    if bad[k] == nil then
      book:keep(todo[k], got[k])
      book:flush()
    end
  end)
  local all, all_errors = {}, {}
  for index, value in pairs(known) do
    all[index] = value[1]
  end
  for k, index in ipairs(todo) do
    all[index], all_errors[index] = results[k], errors[k]
    if errors[k] then
      errors[k].index = index
    end
  end
  return all, all_errors, stopped, failure
end

local function settle(plan, results, errors, stopped, failure)
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

local function raise(err)
  if err then
    error(err, 0)
  end
end

---@return string? text what is wrong
---@return table results
---@return table? errors
function M.map(target, list, fn, opts)
  local plan, text = planning.make("map", target, list, fn, opts)
  if not plan then
    return text
  end
  local err, results, errors
  if plan.opts.journal then
    err, results, errors = settle(plan, run_with_journal(plan))
  else
    err, results, errors = settle(plan, run(plan, { want = "value" }))
  end
  raise(err)
  return nil, results, errors
end

---@return string? text what is wrong
---@return integer n items that ended well
---@return table? errors
function M.each(target, list, fn, opts)
  local plan, text = planning.make("each", target, list, fn, opts)
  if not plan then
    return text
  end
  local err, results, errors = settle(plan, run(plan, { want = "nothing" }))
  raise(err)
  local failed = 0
  for _ in pairs(errors or {}) do
    failed = failed + 1
  end
  return nil, results.n - failed, errors
end

-- ---------------------------------------------------------------------- find

---@return string? text what is wrong
---@return integer? index
---@return any item
function M.find(target, list, pred, opts)
  local plan, text = planning.make("find", target, list, pred, opts)
  if not plan then
    return text
  end
  local wants_first = plan.opts.which == "first"
  local found, settled, before = nil, {}, 0
  local results, errors, stopped, failure = run(plan, { want = "truth", eager = true },
    function(index, got)
      settled[index] = true
      while settled[before + 1] do
        before = before + 1
        settled[before] = nil
      end
      if got[index] == true and (not found or index < found) then
        found = index
      end
      got[index] = nil
      -- All before it have answered.
      return found and (not wants_first or before >= found)
    end)
  if not found then
    local err = settle(plan, results, errors, stopped, failure)
    raise(err)
    return nil
  end
  return nil, found, plan.list and plan.list[found] or found
end

-- -------------------------------------------------------------------- reduce

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
    return nil, ("fork_map.reduce: init cannot be copied: %s: %s"):format(path, reason)
  end
  return function()
    return (core.decode("lua", bytes))
  end
end

-- Fold the segments in `todo`; those in which an item died are left in the list
-- that comes back.
local function fold_once(plan, todo, partials, errors, fold, at)
  local part = setmetatable({ n = #todo, list = todo, fn = fold }, { __index = plan })
  local results, bad, stopped, failure = run(part, { want = "value" }, at and function(k, _, failed)
    if failed[k] then
      failed[k].detail = at[1]
    end
  end)
  local again = {}
  for k, segment in ipairs(todo) do
    local err = bad[k]
    if err then
      local item = err.detail or (segment - 1) * segment_size(plan.n) + 1
      err.index, err.detail = item, nil
      errors[item] = err
      again[#again + 1] = segment
    else
      partials[segment] = { results[k] }
    end
  end
  return again, stopped, failure
end

---@return string? text what is wrong
---@return any accumulated
---@return table? errors
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
  local size, n = segment_size(plan.n), plan.n
  local errors, partials, todo = {}, {}, {}
  for segment = 1, (n + size - 1) // size do
    todo[segment] = segment
  end
  local at = plan.workers == 0 and {} or nil
  local function fold(segment)
    local first = (segment - 1) * size + 1
    return core.fold(step, copy(), plan.list, first, math.min(n, first + size - 1), errors, at)
  end
  local collects = plan.opts.on_error == "collect"
  local stopped, failure
  repeat
    todo, stopped, failure = fold_once(plan, todo, partials, errors, fold, at)
    if failure or (not collects and next(errors)) then
      local _, first = next(errors)
      raise(failure or first)
    end
  until #todo == 0 or stopped
  local acc = copy()
  for segment = 1, (n + size - 1) // size do
    if partials[segment] then
      acc = segment == 1 and partials[1][1] or combine(acc, partials[segment][1])
    end
  end
  if next(errors) == nil then
    return nil, acc
  end
  return nil, acc, errors
end

-- -------------------------------------------------------------------- chunks

-- A list of lists, each made when it is asked for.
local Chunks = { __name = "fork_map.chunks" }

function Chunks:__len()
  return rawget(self, "n")
end

function Chunks:__index(i)
  local n = rawget(self, "n")
  if math.type(i) ~= "integer" or i < 1 or i > n then
    return nil
  end
  local list, size, total = rawget(self, "list"), rawget(self, "size"), rawget(self, "total")
  local chunk, first = {}, (i - 1) * size
  for k = 1, math.min(size, total - first) do
    chunk[k] = list[first + k]
  end
  return chunk
end

---@return table? view a list of lists of `size` items
---@return string? text what is wrong
function M.chunks(list, size)
  size = math.type(size) and math.tointeger(size)
  if not size or size < 1 then
    return nil, "fork_map.chunks: the size must be an integer, 1 or more"
  end
  if type(list) ~= "table" then
    return nil, ("fork_map.chunks: a list is expected, not a %s"):format(type(list))
  end
  local total = math.tointeger(rawget(list, "n") or #list) or 0
  return setmetatable({
    n = (total + size - 1) // size, list = list, size = size, total = total,
  }, Chunks)
end

return M
