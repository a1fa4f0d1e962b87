-- SPDX-License-Identifier: MIT
-- The client's half of a remote template: one behind a connection, where no descriptor
-- can be passed.  See fork_map/remote_talk.lua.
--
-- Nothing here is a task.  What is sent is queued and written from the loop when there
-- is room, what comes is read from the loop while something is outstanding: so commands
-- return at once, in any place, and a template that has nothing to do is not watched.
--
-- States: "starting" until the other side has said who it is, "ready", and then, for
-- ever, "failed" (with `err`) or "closed".  end_with() is the one way out, and settles
-- whatever waits.

local cells = require "fork_map.cell"
local channels = require "fork_map.channel"
local connecting = require "fork_map.remote_connect"
local core = require "fork_map.core"
local futures = require "fork_map.future"
local loops = require "fork_map.loop"
local queues = require "fork_map.queue"
local talk = require "fork_map.remote_talk"
local timers = require "fork_map.timers"
local travel = require "fork_map.travel"
local waits = require "fork_map.wait_fd"

local M = {}

-- Seconds that a call which was asked to end has beyond its grace, before the other side
-- is taken for gone.
local GRACE, BEYOND = 1, 5

---@class fork_map.Remote
---@field loop fork_map.Loop
---@field link fork_map.core.Link
---@field state "starting"|"ready"|"failed"|"closed"
---@field err fork_map.Error? why it has failed
---@field remote_pid integer?
---@field out table queue of messages to send
---@field is_sending boolean the last of them is on its way
---@field n_open integer commands without an answer
---@field calls table queue of cells of calls that wait for their turn
---@field call fork_map.Cell? the one that runs
---@field number integer of it
---@field waiting table<fork_map.Cell, true> of wait()
local Remote = { __name = "fork_map.Remote" }
Remote.__index = Remote

local function is_over(self)
  return self.state == "failed" or self.state == "closed"
end

-- ------------------------------------------------------------------- the end

local function stop_listening(self)
  for _, name in ipairs { "reader", "writer" } do
    if self[name] then
      self[name]:stop()
      self[name] = nil
    end
  end
  if self.timer then
    self.loop:stop_timer(self.timer)
    self.timer = nil
  end
  if self.cancel_timer then
    self.loop:stop_timer(self.cancel_timer)
    self.cancel_timer = nil
  end
end

-- Those in wait() look again.
local function wake(self)
  for cell in pairs(self.waiting) do
    self.waiting[cell] = nil
    cell:succeed(0, {})
  end
end

-- It is over, and so is all that it was to do.
local function end_with(self, state, err)
  if is_over(self) then
    return
  end
  self.state, self.err = state, err
  stop_listening(self)
  self.out = queues.new()
  if not self.is_taken then
    self.kept = nil
    core.link_close(self.link)
  end
  local call, calls = self.call, self.calls
  self.call, self.calls = nil, queues.new()
  if call then
    call:fail(err)
  end
  while not queues.is_empty(calls) do
    queues.pop(calls):fail(err)
  end
  wake(self)
end

local function fail(self, kind, message)
  end_with(self, "failed", cells.new_error(kind, message))
end

-- ------------------------------------------------------------------ writing

local write, read

-- Have `verb(self)` called when the connection is ready.
local function listen(self, name, mode, verb)
  local read_fd, write_fd = core.link_fds(self.link)
  local listener, message = waits.listen(self.loop, mode == "r" and read_fd or write_fd, mode,
    function()
      self[name] = nil
      verb(self)
    end)
  self[name] = listener
  if not listener then
    fail(self, "protocol", "the connection cannot be watched: " .. message)
  end
end

local GONE = "the connection to the template has ended"

-- The first message may go at once, others when it is known who is there.
local function may_send(self)
  return not queues.is_empty(self.out) and not (self.state == "starting" and self.has_greeted)
end

function write(self)
  while not (self.writer or is_over(self)) do
    local state, message
    if may_send(self) then
      local first = self.out[self.out.first]
      state, message = core.link_send(self.link, first.data, first.format)
      if state == "sent" or state == "begun" then
        queues.pop(self.out)
        self.has_greeted, self.is_sending = true, state == "begun"
      end
    elseif self.is_sending then
      state, message = core.link_flush(self.link)
      self.is_sending = state == false
    else
      return
    end
    if state == nil then
      read(self) -- perhaps it has said why
      fail(self, "protocol", ("%s: %s"):format(GONE, message))
    elseif state == "again" or state == false then
      listen(self, "writer", "w", write)
    end
  end
end

local function is_outstanding(self)
  return self.state == "starting" or self.n_open > 0 or self.call ~= nil
end

-- Hear what comes, while something is to come.
local function attend(self)
  if not (self.reader or is_over(self) or self.is_taken) and is_outstanding(self) then
    listen(self, "reader", "r", read)
  end
end

local function send(self, ...)
  local data, format, message = core.encode("auto", ...)
  if not data then -- options and names are plain, arguments are packed before
    error(("fork_map: %s: %s"):format(format, message), 0)
  end
  queues.push(self.out, { data = data, format = format })
  write(self)
  attend(self)
end

-- ------------------------------------------------------------------ reading

local next_call

local Answers = {}

function Answers:done()
  if self.n_open == 0 then
    return false
  end
  self.n_open = self.n_open - 1
  if self.n_open == 0 then
    -- What comes after the answer to run() is the user's.
    self.is_taken = self.is_leaving
    wake(self)
    next_call(self)
  end
end

function Answers:failed(fields)
  local err = talk.to_error(fields)
  if self.n_open == 0 or not err then
    return false
  end
  end_with(self, "failed", err)
end

-- The call of this number has ended; nil when there is none.
local function take_call(self, number)
  local call = self.call
  if not call or number ~= self.number then
    return nil
  end
  self.call = nil
  if self.cancel_timer then
    self.loop:stop_timer(self.cancel_timer)
    self.cancel_timer = nil
  end
  return call
end

function Answers:values(number, ...)
  local call = take_call(self, number)
  if not call then
    return false
  end
  call:succeed(select("#", ...), { ... })
  next_call(self)
end

function Answers:error(number, fields)
  local err = talk.to_error(fields)
  local call = err and take_call(self, number)
  if not call then
    return false
  end
  call:fail(err)
  next_call(self)
end

local function greet(self, values)
  local stranger = talk.find_stranger(values)
  if stranger then
    fail(self, "protocol", stranger)
    return
  end
  self.remote_pid = math.tointeger(values[4])
  self.state = "ready"
  self.loop:stop_timer(self.timer)
  self.timer = nil
  if self.n_open == 0 then
    wake(self)
  end
  write(self)
  next_call(self)
end

local function answer(self, verb, ...)
  local fn = type(verb) == "string" and Answers[verb]
  if not fn or fn(self, ...) == false then
    fail(self, "protocol", "the template has sent a message that nobody expects")
  end
end

-- The connection gives no more: why.
local function lose(self, message, name)
  if self.state ~= "starting" then
    fail(self, "protocol", name == "EOF" and GONE or ("%s: %s"):format(GONE, message))
  elseif name == "EPROTOCOL" then
    fail(self, "protocol", "the other end is no template of fork_map; it said "
      .. talk.quote(core.link_heard(self.link)))
  else
    fail(self, "spawn", "the connection to the template ended before anything was said")
  end
end

function read(self)
  while not is_over(self) and not self.is_taken do
    local data, format, name = core.link_recv(self.link)
    if data == nil then
      lose(self, format, name)
      return
    elseif not data then
      break
    end
    local values = talk.unpack(format, data)
    if not values then
      fail(self, "protocol", "the template has sent bytes that are no values")
    elseif self.state == "starting" then
      greet(self, values)
    else
      answer(self, table.unpack(values, 1, values.n))
    end
  end
  attend(self)
end

-- ------------------------------------------------------------------- calls

local CALL = {}

-- Its arguments are there: it waits for its turn, as the template runs one at a time.
function CALL.start(cell)
  local self = cell.remote
  local format, data = talk.pack(table.unpack(cell.args, 1, cell.args.n))
  if is_over(self) or not format then
    cell:fail(self.err or data)
    return
  end
  cell.format, cell.data, cell.args = format, data, nil
  cell.is_queued = true
  queues.push(self.calls, cell)
  next_call(self)
end

function CALL.cancel(cell, grace)
  local self = cell.remote
  if self.call ~= cell then
    return false
  end
  send(self, "cancel", self.number, grace or false)
  local seconds = (grace or cell.opts.grace or GRACE) + BEYOND
  self.cancel_timer = self.cancel_timer or self.loop:at(core.now() + seconds, function()
    self.cancel_timer = nil
    fail(self, "protocol", "the template does not answer")
  end)
  return true
end

function CALL.close(cell, err)
  end_with(cell.remote, "closed", err)
end

-- Give the template the next call, if it has nothing to do.
function next_call(self)
  if self.state ~= "ready" or self.call or self.n_open > 0 then
    return
  end
  while not queues.is_empty(self.calls) do
    local cell = queues.pop(self.calls)
    cell.is_queued = nil
    if not cell.is_settled then
      cell:move("state", "started")
      self.number = self.number + 1
      self.call = cell
      send(self, "spawn", self.number, cell.kind_of_code, cell.code, cell.opts,
        cell.index or false, cell.format, cell.data)
      return
    end
  end
end

local function check_open(self)
  if self.loop:is_stale() then
    error(loops.new_stale_error(), 0)
  elseif self.err then
    error(self.err, 0)
  end
end

---Begin a call of `fn(...)` in a process forked off the template.
---@param call table what check_options() gave
---@param scope table? the nursery's
---@param index integer? of an item
---@param fn function|string "module:function", or a function that captures only _ENV
---@param ... any
---@return fork_map.Future?
---@return string? text why the function cannot travel
function Remote:spawn(call, scope, index, fn, ...)
  local kind, code = travel.pack(fn)
  if not kind then
    return nil, code
  end
  check_open(self)
  self.loop:check_open()
  local cell = cells.new(self.loop, "remote", CALL)
  cell.remote, cell.opts, cell.index = self, call, index
  cell.kind_of_code, cell.code = kind, code
  return futures.call(cell, scope, ...)
end

-- ----------------------------------------------------------------- commands
-- They return true, or nil and what is misused; they raise why the template has failed.

local function command(self, ...)
  self.n_open = self.n_open + 1
  send(self, ...)
  return true
end

-- The same with packed arguments, after one or two values.
local function command_with(self, verb, a, b, ...)
  local format, data = talk.pack(...)
  if not format then
    error(data, 0)
  elseif b ~= nil then
    return command(self, verb, a, b, format, data)
  elseif a ~= nil then
    return command(self, verb, a, format, data)
  end
  return command(self, verb, format, data)
end

---@param ... string names of modules
function Remote:require(...)
  check_open(self)
  local names = table.pack(...)
  for i = 1, names.n do
    if type(names[i]) ~= "string" then
      return nil, ("the name of a module is expected, not a %s"):format(type(names[i]))
    end
  end
  for i = 1, names.n do
    command(self, "require", names[i])
    check_open(self)
  end
  return true
end

---@param code string|function source text, or a function that captures only _ENV
---@param ... any what it is called with
function Remote:eval(code, ...)
  check_open(self)
  local kind, text = travel.pack_code(code)
  if not kind then
    return nil, text
  end
  return command_with(self, "eval", kind, text, ...)
end

---@param ... any kept for run()
function Remote:send_arg(...)
  check_open(self)
  return command_with(self, "send_arg", nil, nil, ...)
end

local NO_DESCRIPTORS = "no descriptor can be passed to a template behind connect"

function Remote:send_fd() -- luacheck: no self
  return nil, NO_DESCRIPTORS
end

function Remote:fork() -- luacheck: no self
  return nil, "a template behind connect cannot be forked: " .. NO_DESCRIPTORS
end

-- ------------------------------------------------------------------ waiting

local Waiting = {}

function Waiting:__close()
  local cell = self.cell
  self.remote.waiting[cell] = nil
  cell.seen = true
  cell:fail(loops.new_cancelled_error())
  -- It is nobody's future, and step() does not count it.
  cell.loop.n_settled = cell.loop.n_settled - 1
end

local WAIT = {}

---Wait until all that was asked of it so far is done.  Raises why it has failed.
---@param seconds? number
---@return boolean ready false when the time is over
function Remote:wait(seconds)
  if seconds ~= nil and not timers.is_span(seconds) then
    return nil, "seconds must be a number of at least 0"
  end
  local deadline = seconds and core.now() + seconds
  while true do
    check_open(self)
    if self.state == "ready" and self.n_open == 0 then
      return true
    end
    local cell = cells.new(self.loop, "remote wait", WAIT)
    self.waiting[cell] = true
    local _ <close> = setmetatable({ remote = self, cell = cell }, Waiting)
    local f = futures.new(cell) -- held while it is waited for
    if not loops.wait(f, cell, deadline) then
      return false
    end
  end
end

-- run() is left: with the channel, or by an error, such as a cancel of its wait.
local Leaving = {}

function Leaving:__close(err)
  local remote = self.remote
  remote.is_taken = err == nil
  end_with(remote, "closed", cells.new_error("closed", "the template was taken over by run()"))
end

---Have it call the function of that name, which gets a channel, then what was sent, then
---`...`; and give the channel's other end.  The template is closed by that.
---@param name string "module:function"
---@return fork_map.Channel? channel
---@return string? text what is misused
function Remote:run(name, ...)
  check_open(self)
  local kind, text = travel.pack(name)
  if kind ~= "name" then
    return nil, kind and 'a name "module:function" is expected, not a function' or text
  elseif self.call or not queues.is_empty(self.calls) then
    return nil, "calls of this template have not ended"
  end
  self.is_leaving = true
  command_with(self, "run", name, nil, ...)
  local _ <close> = setmetatable({ remote = self }, Leaving)
  self:wait()
  local channel = channels.wrap(self.link, self.loop)
  channel.kept = self.kept
  return channel
end

-- ------------------------------------------------------------------ the rest

---@return integer? pid of the process there, once it is known
function Remote:pid()
  return self.remote_pid
end

---@return "starting"|"ready"|"failed"|"closed"
function Remote:status()
  if self.loop.is_closed then
    self:close()
  elseif not (is_over(self) or self.reader or self.loop:is_stale()) then
    read(self) -- it may have gone
  end
  return self.state
end

---End the connection, and by that the template and what it runs.  May be repeated.
function Remote:close()
  if not self.loop:is_stale() then
    end_with(self, "closed", cells.new_error("closed", "the template was closed"))
  end
end

---A template behind a connection: `connect` is a descriptor, a file or another thing with
---one, a pair of them, or a function that returns this.  Numbers are taken over, of other
---things copies are.
---@param loop fork_map.Loop
---@param connect any
---@return fork_map.Remote? remote
---@return fork_map.Error? err why there is none
function M.open(loop, connect)
  loop:check_open()
  local link, ends = connecting.open(connect)
  if not link then
    return nil, cells.new_error("spawn", "connect: " .. ends)
  end
  local self = setmetatable({
    loop = loop, link = link, state = "starting", kept = ends, out = queues.new(),
    has_greeted = false, is_sending = false, n_open = 0,
    calls = queues.new(), number = 0, waiting = {},
  }, Remote)
  self.timer = loop:at(core.now() + talk.PATIENCE, function()
    self.timer = nil
    local heard = core.link_heard(self.link)
    heard = heard == "" and "nothing" or "nothing but " .. talk.quote(heard)
    fail(self, "spawn", ("the other end of the connection has said %s for %g s")
      :format(heard, talk.PATIENCE))
  end)
  send(self, talk.NAME, talk.VERSION, core.version, core.own_pid())
  return self
end

return M
