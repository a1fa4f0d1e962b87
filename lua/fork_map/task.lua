-- SPDX-License-Identifier: MIT
-- Tasks: coroutines that the loop resumes, and what waits for time.
--
-- A task is ready (in the loop's queue), runs, or waits: then `waits` numbers
-- the wait, and only a wake-up with that number ends it.  Being asked to stop
-- ends every wait that is not shielded, until the task has ended; being forced
-- closes its coroutine, as soon as that is suspended.

local cells = require "fork_map.cell"
local core = require "fork_map.core"
local futures = require "fork_map.future"
local loops = require "fork_map.loop"

local M = {}

-- Seconds that a task has to end when it is asked to.
local GRACE = 1

---@class fork_map.Task
---@field co thread
---@field cell fork_map.Cell
local Task = {}
Task.__index = Task
M.Task = Task

local CANCELLED = "the task was cancelled"

Task.begin_wait = loops.Context.begin_wait

---Leave the loop to others until the running task is woken; returns why.
function Task:pause()
  coroutine.yield()
  return self.why
end

local function push_ready(self)
  self.is_ready = true
  self.cell.loop:push_ready(self)
end

---End the wait of that number, if the task is still in it.
function Task:wake(number, why)
  if self.is_waiting and self.waits == number then
    self.is_waiting = false
    self.why = why
    push_ready(self)
  end
end

---Leave the loop to others for a turn.
function Task:pass()
  self:wake(self:begin_wait(), "settled")
  self:pause()
end

local function finish(self)
  local cell, group = self.cell, self.group
  if self.ok == nil then -- not even the handler of its errors could run
    local _, raised = coroutine.close(self.co)
    self.ok, self.n, self.values = false, 1, { raised }
  end
  self.co = nil
  if self.force_timer then
    cell.loop:stop_timer(self.force_timer)
  end
  if self.ok then
    cell:succeed(self.n, self.values)
  else
    local err = cells.to_error(self.values[1])
    local was_asked = cell.stop ~= "none" and err.kind == "cancelled"
    cell:fail(err, was_asked and "cancelled" or "failed")
  end
  if group then
    group:count_down(self)
  end
end

local function keep_result(self, ok, ...)
  self.ok, self.n, self.values = ok, select("#", ...), { ... }
end

-- The coroutine of a task was resumed, or closed, and has stopped.
local Stopped = {}

-- End its coroutine where it stands, with what it has to close.
local function force(self, why)
  local co = self.co
  if not co or coroutine.status(co) ~= "suspended" then
    return -- it runs: see Stopped
  end
  loops.end_wait(self)
  local _ <close> = setmetatable({ task = self, was = loops.current }, Stopped)
  loops.current, self.is_closing = self, true
  local ok, err = coroutine.close(co)
  keep_result(self, false, ok and why or cells.to_error(err))
end

-- What stands in __close happens also when a hook of the host raises as soon as
-- the coroutine has stopped, which is when it hears of a signal.
function Stopped:__close()
  local task = self.task
  loops.current = self.was
  if not task.co then
    return
  elseif task.is_closing or coroutine.status(task.co) == "dead" then
    finish(task)
  elseif task.cell.stop == "forced" then
    force(task, task.stop_error)
  elseif not task.is_waiting and not task.is_ready then
    push_ready(task) -- it has yielded by itself
  end
end

-- Resume it, from the loop.
function Task:run()
  if not self.co then
    return
  end
  self.has_begun, self.is_ready = true, false
  local _ <close> = setmetatable({ task = self }, Stopped)
  loops.current = self
  coroutine.resume(self.co)
end

local VERBS = {
  cancel = function(cell, grace)
    local self = cell.task
    if not self.stop_error then
      self.stop_error = cells.new_error("cancelled", CANCELLED)
    end
    if not self.has_begun or grace == 0 and not loops.is_calling then
      force(self, self.stop_error)
      return true
    end
    local loop = cell.loop
    local at = core.now() + (grace or self.grace or GRACE)
    if not self.force_timer or at < self.force_timer.at then
      if self.force_timer then
        loop:stop_timer(self.force_timer)
      end
      self.force_timer = loop:at(at, function()
        cell:move("stop", "forced")
        force(self, self.stop_error)
      end)
    end
    if grace ~= 0 and self.is_waiting and not self.is_shielded then
      self:wake(self.waits, "cancelled")
    end
    return true
  end,
  status = function(cell)
    return cell.task.has_begun and "running" or "queued"
  end,
  needs_task = function(cell)
    return not cell.is_settled
  end,
  close = function(cell, err)
    force(cell.task, err)
  end,
  goes_on = true, -- though nobody has its future
}

---Start `fn(...)` as a task of this loop.
---@param scope table? the nursery's
---@return fork_map.Future
---@return fork_map.Task
function M.start(loop, scope, fn, ...)
  loop:check_open()
  local cell = cells.new(loop, "task", VERBS)
  local args = table.pack(...)
  local self = setmetatable({ cell = cell, waits = 0, has_begun = false }, Task)
  cell.task, cell.scope, cell.callback_scope = self, scope, scope
  self.co = coroutine.create(function()
    keep_result(self, xpcall(fn, cells.to_error, table.unpack(args, 1, args.n)))
  end)
  local parent = loops.current
  if parent and parent.group then
    parent.group:add(self)
  end
  cell:move("state", "started")
  push_ready(self)
  return futures.new(cell), self
end

-- ------------------------------------------------------------------- time

---Wait for `seconds`; 0 lets the others run.
function M.sleep(loop, seconds)
  local cell = { loop = loop, is_settled = false }
  loops.wait(nil, cell, core.now() + seconds)
end

---Let the others run.
function M.yield(loop)
  local task = loops.current
  if task and loops.can_suspend(task) then
    local err = loops.find_cancel(task)
    task:pass()
    err = err or loops.find_cancel(task)
    if err then
      error(err, 0)
    end
    return
  end
  M.sleep(loop, 0)
end

-- -------------------------------------------------------------------- run

local Group = {}
Group.__index = Group

function Group:add(task)
  task.group = self
  self.tasks[task] = true
  self.n = self.n + 1
end

function Group:count_down(task)
  self.tasks[task] = nil
  self.n = self.n - 1
  if self.n == 0 then
    self.cell:succeed(0, {})
  end
end

function Group:cancel(grace)
  local tasks = {}
  for task in pairs(self.tasks) do
    tasks[#tasks + 1] = task
  end
  for _, task in ipairs(tasks) do
    task.cell:cancel(grace)
  end
end

-- Left by an error, as of a hook of the host.
function Group:__close(err)
  if err ~= nil then
    self:cancel(0)
    self.cell:succeed(0, {})
  end
end

---Run `main(...)` as a task until it and all tasks that it has started have
---ended, and return its values.  When it fails the others are cancelled.
function M.run(loop, main, ...)
  local group <close> = setmetatable({ n = 0, tasks = {}, cell = cells.new(loop, "run") }, Group)
  local ended = futures.new(group.cell)
  local f, task = M.start(loop, nil, main, ...)
  group:add(task)
  loops.wait(f, f.cell)
  if f.cell.outcome ~= "done" then
    group:cancel()
  end
  loops.wait(ended, group.cell, nil, true)
  return f:await()
end

return M
