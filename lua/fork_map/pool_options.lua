-- SPDX-License-Identifier: MIT
-- Options of pools: what they may be, what they are when nobody says, and which of
-- them a single call may have of its own.

local checks = require "fork_map.checks"
local options = require "fork_map.options"
local planning = require "fork_map.plan"

local M = {}

---Options of a pool, and of its workers and calls.
---@class (exact) fork_map.PoolOptions: fork_map.Options
---@field min? integer workers that there always are [0]
---@field max? integer|string workers at once ["auto"]
---@field load? integer calls that a worker has at once [2]
---@field start? number seconds with all of them busy until there is one more [0.1]
---@field stop? number seconds with nothing to do until a worker is ended [10]
---@field max_tasks? integer a worker is replaced after so many calls
---@field max_rss? integer|string a worker is replaced above that size
---@field max_queue? integer calls that wait; whoever submits more waits too [100000]
---@field init? fun() run in each worker before its first call
---@field exit? fun() run in each worker after its last call
---@field on_event? fun(value: any, index: integer?) for what emit() sends
---@field template? fork_map.Template workers are forked off it [a snapshot, made with the pool]

local function template(value)
  local meta = debug.getmetatable(value)
  if type(meta) == "table" and rawget(meta, "__hire") then
    return value
  end
  return nil, "a template that forks here"
end

local POOL = options.join(options.CALL, {
  template = template,
  min = checks.integer(0, 4096),
  max = checks.count,
  load = checks.integer(1, 256),
  start = checks.pause,
  stop = checks.pause,
  max_tasks = options.MAP.max_tasks,
  max_rss = options.MAP.max_rss,
  max_queue = checks.integer(1, 1 << 30),
  init = checks.callback,
  exit = checks.callback,
  on_event = checks.callback,
})

local DEFAULTS = {
  min = 0, max = "auto", load = 2, start = 0.1, stop = 10, max_queue = 100000,
  retries = 0, backoff = 0, retry_on = { "signal", "exit", "no_result" }, codec = "auto",
  keep_fds = {},
}

-- What the pool sees to for each call; a worker's job has none of it.
local OF_CALLS = { "timeout", "retries", "retry_on", "backoff", "seed" }

-- What a call may have of its own, when the pool is the executor of a verb.
local OF_ONE_CALL = {
  timeout = true, grace = true, retries = true, retry_on = true, backoff = true, name = true,
}

local function set_of(list)
  local set = {}
  for _, name in ipairs(list) do
    set[name] = true
  end
  return set
end

---Check the two numbers of pool:resize().
---@return string? text what is wrong
function M.check_size(min, max)
  local checked, text = options.check_opts({ min = min, max = max }, POOL)
  if not checked then
    return text
  elseif not (checked.min and math.type(checked.max) and checked.max > 0) then
    return "fork_map: pool:resize: two numbers of workers are expected"
  elseif checked.min > checked.max then
    return ("fork_map: pool:resize: min is %d, and max is %d"):format(checked.min, checked.max)
  end
end

---@param base table checked options of the view or engine
---@param opts fork_map.PoolOptions
---@return table? settled what the pool works with
---@return fork_map.core.Options|string prepared of its workers, or what is wrong
function M.settle(base, opts)
  local checked, text = options.check_opts(opts, POOL)
  if not checked then
    return nil, text
  end
  local all = options.merge(options.merge(DEFAULTS, base), checked)
  local max, prepared
  max, text = planning.count_workers(all.max)
  if not max then
    return nil, text
  end
  max = math.max(max, 1)
  if all.min > max then
    return nil, ('fork_map: option "min" is %d, and "max" is %d'):format(all.min, max)
  end
  local settled = { max = max, retry_on = set_of(all.retry_on) }
  for name in pairs(POOL) do
    if settled[name] == nil then
      settled[name] = all[name] or nil
    end
  end
  for _, name in ipairs(OF_CALLS) do
    all[name] = nil
  end
  prepared, text = options.prepare(all)
  if not prepared then
    return nil, text
  end
  return settled, prepared
end

---What a call has of its own: a table that falls back on what the pool has.
---@param opts table checked options of calls
---@return table? rules
---@return string? text what is wrong
function M.settle_call(crew, opts)
  local rules = {}
  for name, value in pairs(opts) do
    if OF_ONE_CALL[name] then
      rules[name] = name == "retry_on" and set_of(value) or value
    elseif options.find_call_option { [name] = value } then
      local text = 'fork_map: option "%s" cannot be used with executor: it is one of the pool'
      return nil, text:format(name)
    end
  end
  return setmetatable(rules, { __index = crew })
end

return M
