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
local function run(plan, more, on_log)
  plan.want = more.want
  more.n_well = 0
  if plan.n == 0 then
    return {}, {}
  elseif plan.workers > 0 then
    more.log = on_log ~= nil
    return run_workers(plan, more, on_log)
  end
  local list = plan.list
  plan.get = list and function(place)
    return list[place]
  end or function(place)
    return place
  end
  return run_inline(plan, more, on_log)
end

-- A plan for some of the items, or for other items in their stead.
local function derive(plan, part)
  return setmetatable(part, { __index = plan })
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

local function item_at(plan, index)
  if plan.list then
    return plan.list[index]
  end
  return index
end

-- A function for the items whose numbers are in `todo`.  In a worker, what has
-- to do with the number is done here; core does it for the place.
local function renumber(plan, todo)
  local fn, seed, is_forked = plan.fn, plan.opts.seed, plan.workers > 0
  return function(index)
    if is_forked then
      planning.set_numbers(todo)
      if seed then
        core.random_seed(seed, index)
      end
    end
    return fn(item_at(plan, index), index)
  end
end

-- Items whose results a journal has are not worked on; the others are, under
-- their own numbers.
local function run_with_book(plan, book, more)
  local all, errors, todo = {}, {}, {}
  for index = 1, plan.n do
    local is_known, value = book:find(index, item_at(plan, index))
    if not is_known then
      todo[#todo + 1] = index
    elseif more.want == "value" then
      all[index] = value
    end
  end
  local part = derive(plan, {
    n = #todo, list = todo, numbers = todo, fn = renumber(plan, todo),
    total = plan.n, n_known = plan.n - #todo,
  })
  more.eager = true -- what has ended is to be written at once
  local results, bad, stopped, failure = run(part, more, function(place, got, failed)
    if failed[place] == nil then
      book:keep(todo[place], got[place])
    end
  end)
  more.n_well = more.n_well + part.n_known
  for place, index in ipairs(todo) do
    all[index] = results[place]
    if bad[place] then
      bad[place].index, errors[index] = index, bad[place]
    end
  end
  return all, errors, stopped, failure
end

local function open_and_run(plan, more)
  local book <close> = journal.open(plan.opts.journal)
  return run_with_book(plan, book, more)
end

-- Returns what is wrong with the journal; or nil, and as run().
local function run_with_journal(plan, more)
  if not plan.opts.journal then
    return nil, run(plan, more)
  end
  local ok, results, errors, stopped, failure = pcall(open_and_run, plan, more)
  if ok then
    return nil, results, errors, stopped, failure
  end
  local problem = journal.get_problem(results)
  if not problem then
    error(results, 0)
  end
  return problem
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

-- What a verb returns beside its value only when there is something.
local function trim(value, errors, stopped)
  if stopped ~= nil then
    return value, errors or nil, stopped
  elseif errors then
    return value, errors
  end
  return value
end
M.trim = trim

local function raise(err)
  if err then
    error(err, 0)
  end
end

-- Returns what is wrong with options or journal; or nil, results, errors and how
-- many items ended well.
local function run_all(verb, want, target, list, fn, opts)
  local plan, text = planning.make(verb, target, list, fn, opts)
  if not plan then
    return text
  end
  local more = { want = want }
  local problem, results, errors, stopped, failure = run_with_journal(plan, more)
  if problem then
    return problem
  end
  local err
  err, results, errors = settle(plan, results, errors, stopped, failure)
  raise(err)
  return nil, results, errors, more.n_well
end

---@return string? text what is wrong
---@return table results
---@return table? errors
function M.map(target, list, fn, opts)
  local text, results, errors = run_all("map", "value", target, list, fn, opts)
  return text, results, errors
end

---@return string? text what is wrong
---@return integer n items that ended well
---@return table? errors
---@return any stopped the value of stop()
function M.each(target, list, fn, opts)
  local text, results, errors, n = run_all("each", "nothing", target, list, fn, opts)
  if text then
    return text
  end
  return nil, trim(n, errors, results.stopped)
end

-- ---------------------------------------------------------------------- find

-- Which items have answered, and the first match among them.
local Search = {}
Search.__index = Search

function Search:note(index, is_match)
  self.answered[index] = true
  while self.answered[self.before + 1] do
    self.before = self.before + 1
    self.answered[self.before] = nil
  end
  if is_match and (not self.found or index < self.found) then
    self.found = index
  end
end

-- Is nothing else to be waited for?
function Search:is_over()
  return self.found and (not self.wants_first or self.before >= self.found)
end

-- Does an item that failed come before the match?
local function fails_before(errors, found)
  for index in pairs(errors) do
    if index < found then
      return true
    end
  end
  return false
end

---@return string? text what is wrong
---@return integer? index
---@return any item
function M.find(target, list, pred, opts)
  local plan, text = planning.make("find", target, list, pred, opts)
  if not plan then
    return text
  end
  local wants_first = plan.opts.which == "first"
  local search = setmetatable({ answered = {}, before = 0, wants_first = wants_first }, Search)
  local results, errors, stopped, failure = run(plan, { want = "truth", eager = true },
    function(index, got)
      search:note(index, got[index] == true)
      got[index] = nil
      return search:is_over()
    end)
  local found = search.found
  local collects = plan.opts.on_error == "collect"
  if search:is_over() and (collects or not wants_first or not fails_before(errors, found)) then
    return nil, found, item_at(plan, found)
  end
  raise((settle(plan, results, errors, stopped, failure)))
  if stopped and found then
    return nil, found, item_at(plan, found)
  end
  return nil
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
    local segment, err = todo[place], bad[place]
    if not err then
      segment.is_folded, segment.value = true, got[place]
      return
    end
    err.detail = err.detail or folding.at and folding.at[1]
    local index = take_index(folding, segment, err)
    if index then
      folding.errors[index] = err
      again[#again + 1] = segment
    end
    folding.fatal = folding.fatal or not index and err or nil
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
      local first
      for index in pairs(folding.errors) do
        first = math.min(first or index, index)
      end
      raise(failure or folding.errors[first])
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
  local errors, at = {}, plan.workers == 0 and {} or nil
  local folding = { segments = make_segments(plan.n), errors = errors, at = at }
  function folding.fold(segment)
    return core.fold(step, copy(), plan.list, segment.first, segment.last, errors, at)
  end
  local stopped = fold_all(plan, folding)
  local acc = join(folding.segments, combine, copy)
  return nil, trim(acc, next(errors) and errors, stopped and stopped[1])
end

-- -------------------------------------------------------------------- chunks

-- A list of lists, each made when it is asked for.  What a view is of.
local chunked = setmetatable({}, { __mode = "k" })

local Chunks = { __name = "fork_map.chunks" }

function Chunks:__len()
  return chunked[self].n
end

function Chunks:__index(i)
  local of = chunked[self]
  if math.type(i) ~= "integer" or i < 1 or i > of.n then
    return nil
  end
  local chunk, first = {}, (i - 1) * of.size
  local count = math.min(of.size, of.total - first)
  for k = 1, count do
    chunk[k] = item_at(of, first + k)
  end
  if of.has_n then
    chunk.n = count
  end
  return chunk
end

---@return string? text what is wrong
---@return table view a list of lists of `size` items
function M.chunks(list, size)
  local items, total = planning.read_list("chunks", list)
  if type(total) == "string" then
    return total
  end
  size = math.type(size) and math.tointeger(size)
  if not size or size < 1 then
    return "fork_map.chunks: the size must be an integer, 1 or more"
  end
  local view = setmetatable({}, Chunks)
  chunked[view] = {
    -- Not (total + size - 1) // size, which can wrap.
    n = total // size + (total % size > 0 and 1 or 0), list = items, size = size, total = total,
    has_n = items ~= nil and rawget(items, "n") ~= nil,
  }
  return nil, view
end

return M
