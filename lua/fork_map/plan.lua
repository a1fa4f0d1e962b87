-- SPDX-License-Identifier: MIT
-- What a verb over many items is asked to do: its arguments and options,
-- checked, with everything decided that can be before a process exists.

local core = require "fork_map.core"
local executors = require "fork_map.executor"
local loops = require "fork_map.loop"
local options = require "fork_map.options"

local M = {}

-- Verbs whose items each end for themselves, and with all of them there.
local KEEPS_JOURNAL = { map = true, each = true }

-- Verbs that can begin before they know what all items are.
local TAKES_ITERATOR = { imap = true, imap_unordered = true, each = true }

---@class fork_map.Plan
---@field engine fork_map.Engine
---@field opts table all options, checked
---@field prepared fork_map.core.Options
---@field source function? an iterator that gives the items
---@field list table? nil: the items are the numbers 1 to n, or those of the source
---@field n integer? nil: known when the source has ended
---@field fn function
---@field workers integer 0: inline
---@field bound fork_map.Bound? who calls `fn`, once for each item

-- How many workers the text or number of option `workers` stands for, or nil
-- and what is wrong.
local function count_workers(spec)
  if math.type(spec) == "integer" then
    return spec
  end
  local auto, text = options.auto_workers()
  if not auto or auto == 0 then
    return auto, text -- without a process there is no share of them
  end
  local percent = spec:match("^(%d+)%%$")
  if percent then
    return math.max(1, auto * math.tointeger(tonumber(percent)) // 100)
  end
  local less = spec:match("^auto%-(%d+)$")
  return math.max(1, auto - math.tointeger(tonumber(less or 0)))
end

M.count_workers = count_workers

---@param opts table
---@return integer? workers
---@return string? text what is wrong
local function decide_workers(opts)
  local needs = options.find_process_option(opts)
  if core.is_below_map() and not needs and opts.nested ~= "fork" then
    return 0
  end
  local workers, problem = count_workers(opts.workers or "auto")
  if not workers then
    return nil, problem
  elseif workers == 0 and needs then
    local text = 'fork_map: option "%s" needs a process, and workers = 0 makes none'
    return nil, text:format(needs)
  end
  return workers
end

---The items of `list`: a table 1..n, with its length in `n` if it has holes, or
---a number n that stands for the numbers 1 to n.
---@return table? list
---@return integer|string n or what is wrong
function M.read_list(verb, list)
  if math.type(list) then
    local n = math.tointeger(list)
    if n and n >= 0 then
      return nil, n
    end
    return nil, ("fork_map.%s: a number of items must be an integer, 0 or more"):format(verb)
  end
  if type(list) ~= "table" then
    return nil, ("fork_map.%s: a list is expected, not a %s"):format(verb, type(list))
  end
  local n = rawget(list, "n")
  if n == nil then
    n = #list
  end
  n = math.type(n) and math.tointeger(n)
  if not n or n < 0 then
    return nil, ('fork_map.%s: the list\'s field "n" must be an integer, 0 or more'):format(verb)
  end
  return list, n
end

-- Is it called for items: a function, or what can be called and is no list?
local function is_iterator(source)
  if type(source) == "function" then
    return true
  end
  local meta = debug.getmetatable(source)
  if type(meta) ~= "table" or type(rawget(meta, "__call")) ~= "function" then
    return false
  end
  return type(source) == "userdata"
    or type(source) == "table" and rawget(source, "n") == nil and rawlen(source) == 0
end
M.is_iterator = is_iterator

---What the items come from: a list, as read_list() has it, or an iterator.
---@return function? source
---@return table? list
---@return integer|string|nil n or what is wrong
local function read_source(verb, source)
  if not is_iterator(source) then
    return nil, M.read_list(verb, source)
  elseif TAKES_ITERATOR[verb] then
    return source
  end
  local text = "fork_map.%s: a list is expected, not an iterator; imap and each take one"
  return nil, nil, text:format(verb)
end

-- In a worker whose items stand for others: their numbers, and the process that
-- this is true in.
local numbers, numbers_pid

function M.set_numbers(list)
  if numbers ~= list then
    numbers, numbers_pid = list, core.own_pid()
  end
end

---The number of the item at this place of what the worker works on.
---@param place integer?
---@return integer?
function M.get_number(place)
  if place and numbers and numbers_pid == core.own_pid() then
    return numbers[place]
  end
  return place
end

-- Options of workers, and of what they send beside results.
local NEEDS_WORKERS = {
  "chunk", "isolate", "nested", "init", "exit", "max_tasks", "max_rss", "on_event",
}

-- Who calls the function of a plan with an executor, and how many calls it runs at
-- once; or nil and what is wrong.
local function decide_executor(verb, opts)
  for _, name in ipairs(NEEDS_WORKERS) do
    if opts[name] then
      return nil, ('fork_map.%s: option "%s" cannot be used with executor'):format(verb, name)
    end
  end
  local bound, text = executors.bind(opts.executor, opts)
  if not bound then
    return nil, text
  end
  local workers
  workers, text = count_workers(opts.workers or executors.get_workers(opts.executor) or "auto")
  if not workers then
    return nil, text
  elseif workers > 0 then
    return bound, workers
  elseif opts.workers then
    return nil, ('fork_map.%s: option "workers" must be at least 1 with executor'):format(verb)
  end
  return bound, 1
end

local REFUSALS = {
  callback = "fork_map.%s: cannot wait inside a callback of the engine",
  finalizer = "fork_map.%s: cannot start a child inside a __gc metamethod",
}

-- What is wrong with a function; an executor takes names too.
local function find_misuse(opts, fn)
  if opts.executor then
    return executors.find_misuse(fn)
  elseif type(fn) ~= "function" then
    return ("a function is expected, not a %s"):format(type(fn))
  end
end

---@param verb string
---@param target { engine: fork_map.Engine, opts: table }
---@param list any
---@param fn any
---@param opts table?
---@param defaults table? of the verb
---@return fork_map.Plan?
---@return string? text what is wrong
function M.make(verb, target, list, fn, opts, defaults)
  local source, items, n = read_source(verb, list)
  if type(n) == "string" then
    return nil, n
  end
  local checked, text = options.check_map(opts == nil and {} or opts)
  if not checked then
    return nil, text
  end
  local all = options.merge(options.merge(defaults or {}, target.opts), checked)
  text = find_misuse(all, fn)
  if text then
    return nil, ("fork_map.%s: %s"):format(verb, text)
  elseif all.journal and not KEEPS_JOURNAL[verb] then
    return nil, ('fork_map.%s: option "journal" is for map and each'):format(verb)
  elseif all.journal and source then
    return nil, ('fork_map.%s: option "journal" needs a list, not an iterator'):format(verb)
  end
  local bound, workers, prepared
  if all.executor then
    bound, workers = decide_executor(verb, all)
    text = workers
  else
    workers, text = decide_workers(all)
  end
  if type(workers) ~= "number" then
    return nil, text
  end
  prepared, text = options.prepare(all)
  if not prepared then
    return nil, text
  end
  local refusal = REFUSALS[loops.get_state(target.engine.core)]
  if refusal and workers > 0 then
    return nil, refusal:format(verb)
  end
  return {
    engine = target.engine, opts = all, prepared = prepared, source = source, list = items,
    n = n, fn = fn, workers = workers, bound = bound,
  }
end

---The form that core.map_new() takes.
---@param plan fork_map.Plan
---@param more table
---@return table
function M.core_opts(plan, more)
  local opts = plan.opts
  local chunk = opts.chunk
  local flat = {
    n = plan.n, source = plan.source ~= nil, workers = plan.workers,
    isolate = opts.isolate, max_tasks = opts.max_tasks, max_rss = opts.max_rss,
    deadline = opts.deadline or nil, init = opts.init or nil, exit = opts.exit or nil,
    stops_at_failure = opts.on_error ~= "collect",
  }
  if type(chunk) == "table" then
    flat.chunk_min, flat.chunk_max = chunk.min, chunk.max
  elseif chunk ~= "auto" then
    flat.chunk_min, flat.chunk_max = chunk, chunk
  end
  for name, value in pairs(more) do
    flat[name] = value
  end
  return flat
end

return M
