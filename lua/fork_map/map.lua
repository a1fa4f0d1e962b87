-- SPDX-License-Identifier: MIT
-- Verbs over many items that come back with all of it: map, each, find; and
-- lists of lists.

local core = require "fork_map.core"
local journal = require "fork_map.journal"
local planning = require "fork_map.plan"
local running = require "fork_map.run"

local M = {}

local derive, item_at, raise, run = running.derive, running.item_at, running.raise, running.run
local settle, trim = running.settle, running.trim

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
    n = #todo, numbers = todo, total = plan.n, n_known = plan.n - #todo,
  })
  if not plan.bound then
    part.list, part.fn = todo, renumber(plan, todo)
  end
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
