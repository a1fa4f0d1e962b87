-- SPDX-License-Identifier: MIT
-- Channels: values and descriptors between two processes, in the order sent.
--
-- A channel is one end, in the process that made it; what it is made of, frames on
-- descriptors that do not block, is src/process/link.c's.  Here are waiting and
-- values.  Nothing of a frame is kept in a wait, so a wait may end by a cancel or by
-- its time at any moment: what came of a frame stays in the link, and what went of
-- one is followed by its rest with the next call.

local async = require "fork_map.async"
local core = require "fork_map.core"
local engines = require "fork_map.engine"
local timers = require "fork_map.timers"
local waits = require "fork_map.wait_fd"

local M = {}

-- Memory of decoded values, for the longest frame; as that of a call's result.
local BUDGET = 8 * 256 * 1024 * 1024

-- What the head of a frame says of its values: JSON, or the binary codec.
local FORMATS = { [1] = true, [2] = true }

---One end of a two-way stream of values and descriptors to another process.  Its
---methods wait as futures do, and return nil, a message and a name on failure.
---Dropping it closes it.
---@class fork_map.Channel
---@field package link fork_map.core.Link
---@field package loop fork_map.Loop? nil: of the default engine
---@field package waits table<table, true> waits to end when it is closed
---@field package n_begun integer frames whose first bytes went
---@field package closer? fun()
local Channel = { __name = "fork_map.Channel" }
Channel.__index = Channel

local function check(self, name)
  if getmetatable(self) ~= Channel then
    error(("fork_map: channel:%s: call it with a colon"):format(name), 3)
  end
end

---A channel of this link.
---@param link fork_map.core.Link
---@param loop? fork_map.Loop
---@return fork_map.Channel
local function new(link, loop)
  return setmetatable({ link = link, loop = loop, waits = {}, n_begun = 0 }, Channel)
end

M.wrap = new

---A channel over one socket, or over two descriptors that lead one way each.  They
---become its own: they are moved, and do not block any more.
---@param read_fd integer
---@param write_fd? integer
---@param loop? fork_map.Loop
---@return fork_map.Channel?
---@return string? message
---@return string? name
function M.adopt(read_fd, write_fd, loop)
  local link, message, name = core.link(read_fd, write_fd or read_fd)
  if not link then
    return nil, message, name
  end
  return new(link, loop)
end

---A channel, and the descriptor of its other end, which is the caller's to pass on and
---to close.
---@param loop? fork_map.Loop
---@return fork_map.Channel? channel
---@return integer|string fd or message
---@return string? name
function M.pair(loop)
  local link, fd, name = core.link_pair()
  if not link then
    return nil, fd, name
  end
  return new(link, loop), fd
end

function M.is_channel(value)
  return getmetatable(value) == Channel
end

-- ---------------------------------------------------------------- waiting

-- Wait for one of its descriptors: true, false when the time is over, or nil and why
-- not.
local function wait(self, mode, deadline)
  local read_fd, write_fd = core.link_fds(self.link)
  if not read_fd then
    return nil, "the channel is closed", "ECLOSED"
  end
  local loop = self.loop or async.get_loop(engines.get_default())
  return loop:wait_fd(mode == "r" and read_fd or write_fd, mode, deadline, self.waits)
end

-- Until this frame has gone, which it has when another one has begun.
local function finish(self)
  self.n_begun = self.n_begun + 1
  local number = self.n_begun
  repeat
    local ok, message, name = wait(self, "w")
    if ok == nil then
      return nil, message, name
    end
    ok, message, name = core.link_flush(self.link)
    if ok == nil then
      return nil, message, name
    end
  until ok or self.n_begun ~= number
  return true
end

-- `put(link, a, b)` until it has sent.
local function send(self, put, a, b)
  while true do
    local state, message, name = put(self.link, a, b)
    if state == "sent" then
      self.n_begun = self.n_begun + 1
      return true
    elseif state == "begun" then
      return finish(self)
    elseif state then
      state, message, name = wait(self, "w")
    end
    if state == nil then
      return nil, message, name
    end
  end
end

-- `get(link)` until it has something, or until `deadline`.
local function receive(self, get, deadline)
  while true do
    local first, second, name = get(self.link)
    if first ~= false then
      return first, second, name
    end
    first, second, name = wait(self, "r", deadline)
    if first == nil then
      return nil, second, name
    elseif not first then
      -- What came at the last moment counts.
      first, second, name = get(self.link)
      if first ~= false then
        return first, second, name
      end
      return nil, "timed out", "ETIMEDOUT"
    end
  end
end

local function deadline_of(seconds, verb)
  if seconds == nil then
    return nil
  elseif not timers.is_span(seconds) then
    error(("fork_map: channel:%s: seconds must be a number of at least 0"):format(verb), 3)
  end
  return core.now() + seconds
end

-- ----------------------------------------------------------------- values

-- Send some values as one message.
local function send_values(self, ...)
  local data, format, message = core.encode("auto", ...)
  if not data then
    local path = format:gsub("^result", "value")
    return nil, ("%s: %s"):format(path, message), "EENCODE"
  end
  return send(self, core.link_send, data, format)
end

-- The values of a message, packed.
local function receive_values(self, deadline)
  local data, format, name = receive(self, core.link_recv, deadline)
  if not data then
    return nil, format, name
  elseif not FORMATS[format] then
    return nil, "values of an unknown format", "EPROTOCOL"
  end
  local values = table.pack(pcall(core.decode, format, data, BUDGET))
  if not values[1] then
    return nil, tostring(values[2]), "EPROTOCOL"
  end
  return table.pack(table.unpack(values, 2, values.n))
end

---Send a value, nil included: whatever a call in a child may return, as exactly.  Waits
---while the other end is behind.  One that is cancelled before any of the value went
---sends nothing; after that the rest goes with the next call.
---@param value any
---@return boolean? ok
---@return string? message
---@return string? name "EPIPE" when nobody reads any more, "EENCODE" for what cannot cross
function Channel:send(value)
  check(self, "send")
  return send_values(self, value)
end

---Receive the next value.  Waits at most `seconds`, if they are given.  Success is one
---value, which may be nil; failure is three: compare `select("#", channel:recv())`, or
---send no nil.
---@param seconds? number
---@return any value
---@return string? message
---@return string? name "EOF" when the other end has closed, "ETIMEDOUT", "EBADMSG" when a
---  descriptor is next, "EPROTOCOL"
function Channel:recv(seconds)
  check(self, "recv")
  local values, message, name = receive_values(self, deadline_of(seconds, "recv"))
  if not values then
    return nil, message, name
  elseif values.n ~= 1 then
    return nil, ("%d values where one was expected"):format(values.n), "EPROTOCOL"
  end
  return values[1]
end

---As send(), of any number of values in one message.
---@package
function Channel:send_values(...)
  return send_values(self, ...)
end

---As recv(), of such a message; `deadline` is a time.
---@package
---@return table? values packed
---@return string? message
---@return string? name
function Channel:recv_values(deadline)
  return receive_values(self, deadline)
end

-- ------------------------------------------------------------- descriptors

local METHODS = { "fileno", "getfd", "fd" }

-- A field of a value that may have none.
local function index(value, name)
  return value[name]
end

-- The descriptor that something has: itself, a file's, or what a method tells.  Nil and
-- what is wrong.
local function find_fd(value)
  if math.type(value) == "integer" then
    return value
  elseif io.type(value) == "file" then
    value:flush() -- what was written before is before what the other end writes
    return core.fileno(value)
  elseif io.type(value) then
    return nil, "the file is closed"
  end
  for _, name in ipairs(METHODS) do
    local found, method = pcall(index, value, name)
    if found and type(method) == "function" then
      local fd = method(value) -- luasocket's numbers are floats
      return math.type(fd) and math.tointeger(fd) or nil, "it has no descriptor"
    end
  end
  return nil, ("a descriptor, a file or something with fileno(), getfd() or fd() is expected,"
    .. " not a %s"):format(type(value))
end
M.find_fd = find_fd

---Send a copy of a descriptor, made at once: of a number, of a Lua file, or of whatever
---has a method fileno(), getfd() or fd(), such as a socket.
---@param file any
---@return boolean? ok
---@return string? message
---@return string? name "ENOTSOCK" over pipes
function Channel:send_fd(file)
  check(self, "send_fd")
  local fd, text = find_fd(file)
  if not fd then
    error("fork_map: channel:send_fd: " .. text, 2)
  elseif fd < 0 then
    return nil, "Bad file descriptor", "EBADF"
  end
  local held, message, name = core.hold_fd(fd)
  if not held then
    return nil, message, name
  end
  local _ <close> = held
  return send(self, core.link_send_fd, held)
end

---Receive a descriptor, which is close-on-exec and the caller's; fork_map.file() makes a
---file of it.
---@param seconds? number
---@return integer? fd
---@return string? message
---@return string? name as of recv(); "EBADMSG" when a value is next
function Channel:recv_fd(seconds)
  check(self, "recv_fd")
  return receive(self, core.link_recv_fd, deadline_of(seconds, "recv_fd"))
end

-- ------------------------------------------------------------------ the end

---The descriptor that it reads from; nil when it is closed.  It stays the channel's.
---@return integer?
function Channel:fileno()
  check(self, "fileno")
  return (core.link_fds(self.link))
end

---A descriptor that is readable when there is something to receive, or the end: for
---loops of hosts.
---@return integer?
function Channel:pollfd()
  check(self, "pollfd")
  return (core.link_fds(self.link))
end

---Close it.  What others wait for on it fails with "ECLOSED".  May be repeated.
---@return boolean ok
function Channel:close()
  check(self, "close")
  if core.link_fds(self.link) then
    core.link_flush(self.link)
    waits.end_waits(self.waits)
    core.link_close(self.link)
    if self.closer then
      self.closer()
    end
  end
  return true
end

---Call `fn()` when it is closed; it is held until then.
---@package
function Channel:on_close(fn)
  self.closer = fn
end

function Channel:__close()
  -- In a child it was never open.
  if not pcall(core.link_fds, self.link) then
    return
  end
  self:close()
end

return M
