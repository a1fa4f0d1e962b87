-- SPDX-License-Identifier: MIT
-- Nurseries: nothing that is started in one outlives it.
--
-- A scope is open, then left: while its leaving waits for what is in it, that
-- may still add to it.  It is stopped (`cancel_error`) by its first failure, its
-- deadline, cancel(), or the collection of its handle: then everything in it is
-- cancelled, and every wait of its body is ended by that error.  Waits of the
-- leaving itself are shielded.  Structured concurrency is after N. J. Smith,
-- "Notes on structured concurrency" (2018).

local cells = require "fork_map.cell"
local core = require "fork_map.core"
local executors = require "fork_map.executor"
local futures = require "fork_map.future"
local loops = require "fork_map.loop"
local queues = require "fork_map.queue"
local signals = require "fork_map.signal"
local tasks = require "fork_map.task"
local timers = require "fork_map.timers"

local M = {}

---@class fork_map.Scope
local Scope = {}
Scope.__index = Scope

---@class fork_map.Nursery
---@field package scope fork_map.Scope
local Nursery = { __name = "fork_map.Nursery" }
Nursery.__index = Nursery

-- ----------------------------------------------------------------- signals

-- Raised when something in the scope has settled, and when the last of it has.
local SIGNALS = {
  change = signals.new_verbs(function(cell, known)
    for inner in pairs(cell.owner.futures) do
      if not inner:needs_task(known) then
        return false
      end
    end
    return true
  end),
  empty = signals.new_verbs(function(cell, known)
    for inner in pairs(cell.owner.futures) do
      if inner:needs_task(known) then
        return true
      end
    end
    return false
  end),
}

local function wait_for(self, name, is_shielded)
  signals.wait(self, name, SIGNALS[name], is_shielded)
end

-- ------------------------------------------------------------------- scope

-- Cancel what is in it.
function Scope:cancel_children(grace)
  local inner = {}
  for cell in pairs(self.futures) do
    inner[#inner + 1] = cell
  end
  for _, cell in ipairs(inner) do
    cell:cancel(grace)
  end
end

---From now on nothing in it goes on, and its body waits no more.
function Scope:stop(grace)
  if not self.cancel_error then
    self.cancel_error = cells.new_error("cancelled", "the nursery was cancelled")
  end
  local context = self.context
  if context.is_waiting and not context.is_shielded and not self.is_leaving then
    context:wake(context.waits, "cancelled")
  end
  self:cancel_children(grace)
end

---Something in it has failed.
---@return boolean taken false when it was left
function Scope:take_failure(err)
  if self.is_left then
    return false
  end
  if self.failure == nil then
    self.failure = err
    if self.on_error ~= "keep" then
      self:stop()
    end
  elseif err ~= self.failure then
    self.others[#self.others + 1] = err
  end
  return true
end

local function start_pending(self)
  while not queues.is_empty(self.pending) and self.n_active < self.max_active do
    local cell = queues.pop(self.pending)
    if not cell.is_settled then
      self:let_start(cell)
    end
  end
end

---A job whose arguments are there may begin, or waits for its turn.
function Scope:let_start(cell)
  if self.n_active >= self.max_active then
    cell.is_deferred = true
    queues.push(self.pending, cell)
    return
  end
  self.n_active = self.n_active + 1
  cell.is_active = true
  cell.verbs.start(cell)
end

---It is in the scope from now on.  What begins after that was stopped is stopped too.
---@return fork_map.Future f
function Scope:admit(f)
  self.futures[f.cell] = f
  self.n_open = self.n_open + 1
  if self.cancel_error then
    f.cell:cancel()
  end
  return f
end

---From the loop, when all that waited for it have been told.
function Scope:count_down(cell)
  local f = self.futures[cell]
  self.futures[cell] = nil
  self.n_open = self.n_open - 1
  if cell.is_active then
    self.n_active = self.n_active - 1
  end
  if cell.outcome == "failed" and self:take_failure(cell.err) then
    cell.seen = true
  end
  start_pending(self)
  queues.push(self.queue, f)
  signals.raise(self, "change")
  if self.n_open == 0 then
    signals.raise(self, "empty")
  end
end

---A callback of what was in it is still to be called.
function Scope:hold()
  self.n_held = self.n_held + 1
end

---It has been.
function Scope:release()
  self.n_held = self.n_held - 1
  if self.n_held == 0 then
    signals.raise(self, "empty")
  end
end

local function late(seconds)
  return cells.new_error("timeout", ("the nursery took longer than %g s"):format(seconds))
end

local function open(loop, prepared, opts)
  local context = loops.get_context()
  local self = setmetatable({
    loop = loop, prepared = prepared, bound = opts.bound, on_error = opts.on_error,
    context = context, outer = context.scope, max_active = opts.max_active or math.huge,
    futures = {}, n_open = 0, n_active = 0, n_held = 0, takers = {}, others = {},
    queue = queues.new(), pending = queues.new(),
  }, Scope)
  context.scope = self
  if opts.deadline then
    self.timer = loop:at(core.now() + opts.deadline, function()
      self.on_error = nil
      self:take_failure(late(opts.deadline))
      self:stop()
    end)
  end
  return setmetatable({ scope = self }, Nursery)
end

-- Its context goes on in the scope around it.  Scopes of blocks may be left in
-- another order than they were opened in.
local function unlink(self)
  local context = self.context
  if context.scope == self then
    context.scope = self.outer
    return
  end
  local inner = context.scope
  while inner and inner.outer ~= self do
    inner = inner.outer
  end
  if inner then
    inner.outer = self.outer
  end
end

-- It is left.
local function retire(self)
  self.is_closed, self.is_left, self.handle = true, true, nil
  self.queue = queues.new()
  if self.timer then
    self.loop:stop_timer(self.timer)
  end
end

-- Failures that nobody will be raised.
local function report(self, failure, others)
  if getmetatable(failure) == core.Error and failure.kind ~= "cancelled" then
    self.loop:report(failure, "unseen")
  end
  for _, err in ipairs(others) do
    self.loop:report(err, "unseen")
  end
end

---From the loop: its handle was collected, so nobody will leave it.
function Scope:drop()
  if self.is_left then
    return
  end
  self.is_leaving = true
  unlink(self)
  self:stop(0)
  retire(self)
  report(self, self.failure, self.others)
end

local function wait_until_empty(self, is_shielded)
  while self.n_open > 0 or self.n_held > 0 do
    wait_for(self, "empty", is_shielded)
  end
end

local function is_cancel(err)
  return type(err) == "table" and err.kind == "cancelled"
end

-- Wait for everything in it.  Returns the error that ended the wait, if the
-- scope around it was cancelled or a hook of the host raised.
local function join(self)
  local ok, err = pcall(wait_until_empty, self)
  if ok then
    return nil
  end
  self:stop(not is_cancel(err) and 0 or nil)
  wait_until_empty(self, true)
  return err
end

-- What leaving it raises, with the failures of the others; or nil.
local function find_failure(self, body_err)
  local failure = self.failure
  if failure == nil then
    failure = body_err
    if is_cancel(body_err) and self.was_cancelled and not loops.find_cancel(self.context) then
      return nil
    end
  elseif body_err ~= nil and body_err ~= failure and not is_cancel(body_err) then
    self.others[#self.others + 1] = cells.to_error(body_err)
  end
  if #self.others > 0 and getmetatable(failure) == core.Error then
    failure.others = self.others
  else
    report(self, nil, self.others)
  end
  return failure
end

-- The leaving itself has ended, perhaps because a task is closed by force.
local Leaving = {}

function Leaving:__close()
  local scope = self.scope
  if not scope.is_left then
    scope:stop(0)
    pcall(wait_until_empty, scope, true)
    retire(scope)
  end
end

-- Leave it, with the error of its body or nil.  Returns what is to be raised.
local function leave(nursery, body_err)
  local self, task = nursery.scope, loops.current
  self.is_leaving, self.handle = true, nursery
  local _ <close> = setmetatable({ scope = self }, Leaving)
  unlink(self)
  if task and task.is_closing then
    self:stop(0)
  elseif body_err ~= nil then
    if self.failure == nil and not is_cancel(body_err) then
      self.failure = body_err
    end
    if self.on_error ~= "keep" then
      self:stop()
    end
  end
  local broken = join(self)
  retire(self)
  local failure = find_failure(self, body_err)
  if broken ~= nil and (failure == nil or not is_cancel(broken)) then
    report(self, failure, {})
    return broken
  end
  return failure
end

-- ------------------------------------------------------------------ nursery

local function check(self, name)
  local scope = getmetatable(self) == Nursery and rawget(self, "scope")
  if not scope then
    error(("fork_map: nursery:%s: call it with a colon"):format(name), 3)
  elseif scope.loop:is_stale() then
    error(cells.new_error("closed", "the nursery belongs to a parent process"), 0)
  end
  return scope
end

local function check_open(self, name, fn)
  local scope = check(self, name)
  if scope.is_closed then
    error(cells.new_error("closed", "the nursery is closed"), 0)
  end
  local misuse
  if name == "spawn" and scope.bound then
    misuse = executors.find_misuse(fn)
  elseif name ~= "adopt" and type(fn) ~= "function" then
    misuse = ("a function is expected, not a %s"):format(type(fn))
  end
  if misuse then
    error(("fork_map: nursery:%s: %s"):format(name, misuse), 3)
  end
  return scope
end

---Run `fn(...)` in a child, as fork_map.spawn() does.
---@param fn function
---@param ... any
---@return fork_map.Future
function Nursery:spawn(fn, ...)
  local scope = check_open(self, "spawn", fn)
  if scope.bound then
    return executors.spawn(scope.bound, scope.loop, scope, nil, fn, ...)
  end
  return futures.spawn(scope.loop, scope.prepared, scope, fn, ...)
end

---Run `fn(...)` as a task, as fork_map.task() does.
---@param fn function
---@param ... any
---@return fork_map.Future
function Nursery:start(fn, ...)
  local scope = check_open(self, "start", fn)
  return scope:admit((tasks.start(scope.loop, scope, fn, ...)))
end

---Take over a future that is in no nursery.
---@param f fork_map.Future
---@return fork_map.Future f
function Nursery:adopt(f)
  local scope = check_open(self, "adopt")
  if not futures.is_future(f) then
    error(("fork_map: nursery:adopt: a future is expected, not a %s"):format(type(f)), 2)
  elseif f.cell.callback_scope then
    error("fork_map: nursery:adopt: the future is in a nursery already", 2)
  end
  local cell = f.cell
  cell.scope, cell.callback_scope = scope, scope
  scope:admit(f)
  if cell.is_settled then
    cell:add_waiter(f, function() end)
  end
  return f
end

-- The cell in the scope that is the task, or that holds it by a nursery; or nil.
local function find_holder(task, scope)
  while task and task.cell do
    local inner = task.cell.callback_scope
    if inner == scope then
      return task.cell
    end
    task = inner and inner.context
  end
  return nil
end

-- While something in the scope waits for its results.
local Taking = {}

function Taking:__close()
  local takers, holder = self.scope.takers, self.holder
  takers[holder] = takers[holder] > 1 and takers[holder] - 1 or nil
end

-- False when nothing is outstanding.  What is in the scope and takes its results
-- does not wait for itself, nor for others while these wait so.
local function wait_for_result(self)
  local holder = find_holder(loops.current, self)
  if not holder then
    if self.n_open == 0 then
      return false
    end
    wait_for(self, "change")
    return true
  end
  local takers, n_others = self.takers, self.n_open
  takers[holder] = (takers[holder] or 0) + 1
  local _ <close> = setmetatable({ scope = self, holder = holder }, Taking)
  for cell in pairs(takers) do
    n_others = n_others - (self.futures[cell] and 1 or 0)
  end
  if n_others <= 0 then
    return false
  end
  wait_for(self, "change")
  return true
end

---`for f in n:results() do`: each future once, in the order in which they settle,
---until nothing is outstanding.
---@return fun(): fork_map.Future?
function Nursery:results()
  local scope = check(self, "results")
  return function()
    while queues.is_empty(scope.queue) do
      if not wait_for_result(scope) then
        return nil
      end
    end
    return queues.pop(scope.queue)
  end
end

---Cancel everything in it, and end the waits of its body.
---@param grace? number seconds until what was asked to end is forced
function Nursery:cancel(grace)
  local scope = check(self, "cancel")
  if grace ~= nil and not timers.is_span(grace) then
    error("fork_map: nursery:cancel: seconds must be a number of at least 0", 2)
  end
  if not scope.is_left then
    scope.was_cancelled = true
    scope:stop(grace)
  end
end

---Nothing more may be added.
function Nursery:close()
  check(self, "close").is_closed = true
end

---How many of its futures have not settled.
---@return integer
function Nursery:count()
  return check(self, "count").n_open
end

-- Whether the running function is the body of that scope, or of one inside it.
local function is_inside(scope)
  local inner = loops.get_context().scope
  while inner do
    if inner == scope then
      return true
    end
    inner = inner.outer
  end
  return false
end

---Wait until nothing is outstanding.  From outside of its body nothing more may be
---added from then on; what it holds may not wait for all of it.
function Nursery:join()
  local scope = check(self, "join")
  if find_holder(loops.current, scope) then
    error("fork_map: nursery:join: would deadlock: it is called by a task of the nursery", 2)
  end
  if not is_inside(scope) then
    scope.is_closed = true
  end
  wait_until_empty(scope)
end

---Leaving a block joins, or cancels when an error leaves it.
function Nursery:__close(err)
  local scope = self.scope
  if scope.is_left then
    return
  end
  local failure = leave(self, err)
  if failure ~= nil and failure ~= err then
    error(failure, 0)
  end
end

function Nursery:__gc()
  local scope = rawget(self, "scope")
  if scope and not scope.is_left and not scope.loop:is_stale() then
    scope.loop:push_dropped(scope)
  end
end

local function finish(nursery, ok, ...)
  local err
  if not ok then
    err = ...
    if err == nil then
      err = cells.new_error("error", "nil was raised")
    end
  end
  local failure = leave(nursery, err)
  if failure ~= nil then
    error(failure, 0)
  elseif ok then
    return ...
  end
end

---Run `body(nursery)` and leave the nursery with it.
function M.run(loop, prepared, opts, body)
  local nursery <close> = open(loop, prepared, opts)
  return finish(nursery, pcall(body, nursery))
end

---A nursery for a block: `local n <close> = …`.
M.open = open

return M
