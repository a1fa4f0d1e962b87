-- SPDX-License-Identifier: MIT
-- Pools: workers that are forked once and called often.

local core = require "fork_map.core"
local cells = require "fork_map.cell"
local crews = require "fork_map.crew"
local futures = require "fork_map.future"
local loops = require "fork_map.loop"
local planning = require "fork_map.plan"
local pool_options = require "fork_map.pool_options"
local signals = require "fork_map.signal"
local travel = require "fork_map.travel"

local M = {}

---Workers that wait for calls.  Dropping it cancels what it has; leaving the block of a
---`local p <close>` lets that come to its end, or cancels it when it is left by an error.
---@class fork_map.Pool
---@field workers integer how many it may have
---@field package crew fork_map.Crew
local Pool = { __name = "fork_map.Pool" }
Pool.__index = Pool

local function check(self, name, level)
  if getmetatable(self) ~= Pool then
    error(("fork_map: pool:%s: call it with a colon"):format(name), level or 3)
  end
  return self.crew
end

-- Whether the running function could wait for room.
local function wait_for_room(crew)
  while crew.n_waiting >= crew.max_queue do
    if loops.find_refusal(crew.loop) then
      local text = "the pool's queue of %d calls is full, and nothing can wait here"
      local err = cells.new_error("limit", text:format(crew.max_queue))
      err.limit, err.name = "queue", crew.name
      error(err, 0)
    end
    crew:wait("room")
  end
end

local function submit(crew, rules, scope, ...)
  crew.loop:check_open()
  if crew.n_waiting >= crew.max_queue then
    wait_for_room(crew)
  end
  if crew.is_closed then
    error(crews.new_closed_error(), 0)
  end
  return futures.call(crew:new_call(rules), scope, ...)
end

local HAS_HANDLER = "this pool has a handler; use pool:submit"

-- What is sent for the function of a pool without a handler, or what is wrong.
local function pack(crew, fn)
  if crew.handler then
    return nil, HAS_HANDLER
  end
  return travel.pack(fn)
end

local NO_HANDLER = "fork_map: pool:%s: this pool has no handler; use pool:spawn"

local function check_handler(self, name)
  local crew = check(self, name, 4)
  if not crew.handler then
    error(NO_HANDLER:format(name), 3)
  end
  return crew
end

---Have a worker call `handler(...)`, and return the future of its values.  Arguments
---are sent as they are now; one that is a future is replaced by its first value.  Waits
---while `max_queue` calls wait already.
---@param ... any
---@return fork_map.Future
function Pool:submit(...)
  return submit(check_handler(self, "submit"), nil, nil, ...)
end

---The values of `handler(...)`, or the error that it has raised.
---@param ... any
---@return any ...
function Pool:call(...)
  local f <close> = submit(check_handler(self, "call"), nil, nil, ...)
  return f:await()
end

---In a pool without a handler: have a worker call `fn(...)`.  `fn` is a function that
---captures nothing but _ENV, or "module:function".
---@param fn function|string
---@param ... any
---@return fork_map.Future
function Pool:spawn(fn, ...)
  local crew = check(self, "spawn")
  local kind, text = pack(crew, fn)
  if not kind then
    error("fork_map: pool:spawn: " .. text, 2)
  end
  return submit(crew, nil, nil, kind, text, ...)
end

---Check options of calls; see fork_map/executor.lua.
function Pool:__prepare(opts)
  if self.crew.handler then
    return nil, 'fork_map: option "executor": this pool has a handler'
  end
  return pool_options.settle_call(self.crew, opts)
end

---Begin a call; see fork_map/executor.lua.  Raises what cannot travel.
function Pool:__spawn(rules, scope, _, fn, ...)
  local kind, text = pack(self.crew, fn)
  if not kind then
    error("fork_map: " .. text, 0)
  end
  return submit(self.crew, rules, scope, kind, text, ...)
end

function Pool:__get_loop()
  return self.crew.loop
end

-- ---------------------------------------------------------------------- map

-- Calls that are under way at once: enough that no worker waits for the next.
local function window_of(crew)
  return math.max(2 * crew.max * crew.load, 16)
end

local Mapping = {}
Mapping.__index = Mapping

-- One of its calls has settled.
local function note(self, index, cell)
  self.futures[index] = nil
  self.n_out = self.n_out - 1
  cell.seen = true
  if cell.outcome == "done" then
    self.results[index] = cell.values[1]
  else
    self.errors[index] = cell.err
    self.first = math.min(self.first, index)
  end
  signals.raise(self, "change")
end

local function start(self, index, item)
  local f = submit(self.crew, nil, nil, item, index)
  self.futures[index] = f
  self.n_out = self.n_out + 1
  f.cell:add_waiter(f, function()
    note(self, index, f.cell)
  end)
end

-- A failure ends it at once, if it is to be raised.
local function has_failed(self)
  return self.raises and self.first < math.huge
end

local function item_at(list, index)
  if list then
    return list[index]
  end
  return index
end

local function run_mapping(self, list, n, window)
  while not has_failed(self) do
    while self.next <= n and self.n_out < window and not has_failed(self) do
      local index = self.next
      self.next = index + 1
      start(self, index, item_at(list, index))
    end
    if self.n_out == 0 then
      return
    end
    signals.wait(self, "change", signals.OUTSIDE)
  end
end

-- What is left of it ends with it.
function Mapping:__close()
  local rest = {}
  for _, f in pairs(self.futures) do
    rest[#rest + 1] = f
  end
  for _, f in ipairs(rest) do
    f:cancel()
  end
  while self.n_out > 0 do
    signals.wait(self, "change", signals.OUTSIDE, true)
  end
end

local function check_map(opts)
  for name, value in next, opts do
    if name ~= "on_error" then
      return ('fork_map: pool:map: unknown option "%s"'):format(tostring(name))
    elseif value ~= "raise" and value ~= "collect" then
      return 'fork_map: pool:map: option "on_error" must be "raise" or "collect"'
    end
  end
end

---The first values of `handler(item, index)` for every item, in the order of the list.
---Raises the first failure, after the rest was cancelled, with the results so far in
---`partial`; with `on_error = "collect"` it returns the results and the errors.
---@param list table|integer
---@param opts? { on_error?: "raise"|"collect" }
---@return table results `results.n` is their number
---@return table<integer, fork_map.Error>? errors
function Pool:map(list, opts)
  local crew = check_handler(self, "map")
  local items, n = planning.read_list("pool:map", list)
  local text = type(n) == "string" and n or check_map(opts or {})
  if text then
    error(text, 2)
  end
  local raises = not (opts and opts.on_error == "collect")
  local results, errors = {}, {}
  do
    local mapping <close> = setmetatable({
      crew = crew, loop = crew.loop, results = results, errors = errors, futures = {},
      n_out = 0, next = 1, first = math.huge, raises = raises,
    }, Mapping)
    run_mapping(mapping, items, n, window_of(crew))
    results.n = n
    local err = raises and errors[mapping.first]
    if err then
      err.index, err.partial = mapping.first, results
      error(err, 0)
    end
  end
  return results, next(errors) and errors or nil
end

-- --------------------------------------------------------------- everything else

---How it does: workers, busy, idle, queued, running, done, failed, retried, retired,
---stopped, died, events; and `wait` and `run`, the seconds that calls have waited for
---their begin and have run: { p50 =, p90 =, p99 =, max = }.
---@return table
function Pool:stats()
  return check(self, "stats"):stats()
end

---Change how many workers it has.  Those that are too many end when they have ended
---what they have begun.
---@param min integer
---@param max integer
function Pool:resize(min, max)
  local crew = check(self, "resize")
  local text = pool_options.check_size(min, max)
  if text then
    error(text, 2)
  end
  crew.loop:check_open()
  self.workers = math.tointeger(max)
  crew:resize(math.tointeger(min), self.workers)
end

-- Until nothing of it is left.
local function wait_for_end(crew, is_shielded)
  while crew.n_workers > 0 or crew.n_open > 0 do
    crew:wait("change", is_shielded)
  end
  crew.home:join(is_shielded)
end

local function check_close(opts)
  if type(opts) ~= "table" then
    return "fork_map: pool:close: a table of options is expected"
  end
  for name, value in next, opts do
    if name ~= "drain" then
      return ('fork_map: pool:close: unknown option "%s"'):format(tostring(name))
    elseif type(value) ~= "boolean" then
      return 'fork_map: pool:close: option "drain" must be true or false'
    end
  end
end

---No more calls.  Waits until those that there are have come to their end, and all
---workers have left; with `drain = false` they are cancelled.  May be called again.
---@param opts? { drain?: boolean } [true]
function Pool:close(opts)
  local crew = check(self, "close")
  local text = check_close(opts or {})
  if text then
    error(text, 2)
  elseif crew.loop:is_stale() then
    error(loops.new_stale_error(), 0)
  elseif crew.loop.is_closed then
    return
  end
  local refusal = loops.find_refusal(crew.loop)
  if refusal then
    error(refusal, 2)
  end
  crew:close(not (opts and opts.drain == false))
  wait_for_end(crew)
end

function Pool:__close(err)
  local crew = self.crew
  if crew.loop:is_stale() or crew.loop.is_closed then
    return
  end
  crew:close(err == nil)
  if not loops.find_refusal(crew.loop) then
    wait_for_end(crew, err ~= nil)
  end
end

-- Nobody can give it calls any more.
function Pool:__gc()
  local crew = self.crew
  if crew and not crew.is_closed and crew.loop.generation == core.generation() then
    crew.loop:push_dropped(crew)
  end
end

-- ------------------------------------------------------------------- making one

-- Functions that have to travel.  Returns what is wrong.
local function pack_functions(settled)
  for _, name in ipairs { "handler", "init", "exit" } do
    local fn = settled[name]
    if fn then
      local kind, text = travel.pack(fn)
      if not kind then
        return ("fork_map.pool: %s: %s"):format(name, text)
      end
      settled[name] = { kind, text }
    end
  end
end

local function find_misuse(handler)
  if handler == nil or type(handler) == "function" then
    return nil
  elseif type(handler) ~= "string" then
    local text = 'fork_map.pool: a function or "module:function" is expected, not a %s'
    return text:format(type(handler))
  end
  local kind, text = travel.pack(handler)
  return not kind and "fork_map.pool: " .. text or nil
end

---@param loop fork_map.Loop
---@param base table options of the view or engine
---@param handler function|string|nil
---@param opts table
---@return fork_map.Pool?
---@return string? text what is wrong
function M.new(loop, base, handler, opts)
  local misuse = find_misuse(handler)
  if misuse then
    return nil, misuse
  end
  local settled, prepared = pool_options.settle(base, opts)
  if not settled then
    return nil, prepared
  end
  settled.handler = handler
  if settled.template then
    local text = pack_functions(settled)
    if text then
      return nil, text
    end
    loop = settled.template:__get_loop()
  end
  loop:check_open()
  local crew = crews.new(loop, prepared, settled)
  local self = setmetatable({ crew = crew, workers = crew.max }, Pool)
  crew:fill()
  return self
end

return M
