-- SPDX-License-Identifier: MIT
-- The server's half of a remote template: does what comes over a channel, in order,
-- and runs one call at a time in a child of its own.  See fork_map/remote_talk.lua.

local channels = require "fork_map.channel"
local core = require "fork_map.core"
local engines = require "fork_map.engine"
local talk = require "fork_map.remote_talk"
local travel = require "fork_map.travel"
local cells = require "fork_map.cell"

local M = {}

---@class fork_map.RemoteServer
---@field channel fork_map.Channel
---@field args any[] what was kept for run()
---@field n_args integer
---@field job fork_map.Future? the call that runs
---@field number integer? of it
---@field next fun()? what takes the process over
local Server = {}
Server.__index = Server

-- ---------------------------------------------------------------- commands
-- Each raises what goes wrong; what it returns is a message that is wrong.

local BAD = "a message that is none"

local Commands = {}

function Commands:require(name) -- luacheck: no self
  if type(name) ~= "string" then
    return BAD
  end
  require(name)
end

-- The function of code that was sent.
local function find_function(kind, code)
  local fn, problem = travel.unpack_code(kind, code)
  return fn or error(problem, 0)
end

local function is_code(kind, code)
  return (kind == "source" or kind == "name" or kind == "dump") and type(code) == "string"
end

function Commands:eval(kind, code, format, data) -- luacheck: no self
  local args = talk.unpack(format, data)
  if not (args and is_code(kind, code)) then
    return BAD
  end
  find_function(kind, code)(table.unpack(args, 1, args.n))
end

function Commands:send_arg(format, data)
  local args = talk.unpack(format, data)
  if not args then
    return BAD
  end
  table.move(args, 1, args.n, self.n_args + 1, self.args)
  self.n_args = self.n_args + args.n
end

function Commands:run(name, format, data)
  local args = talk.unpack(format, data)
  if not (args and is_code("name", name)) then
    return BAD
  end
  local fn = find_function("name", name)
  Commands.send_arg(self, format, data)
  self.next = function()
    fn(self.channel, table.unpack(self.args, 1, self.n_args))
  end
end

-- ------------------------------------------------------------------- calls

local function reply_outcome(self, number, ok, ...)
  if ok then
    self.channel:send_values("values", number, ...)
  else
    self.channel:send_values("error", number, talk.to_fields(...))
  end
end

-- With the random numbers of an item, where there is one.
local function seeded(fn, seed, index)
  return function(...)
    if seed and index then
      core.random_seed(seed, index)
    end
    return fn(...)
  end
end

-- A call as its client wants it.  Raises what is wrong with it.
local function begin(kind, code, opts, index, args)
  local fn = find_function(kind, code)
  local view, text = engines.new_view(opts)
  if not view then
    error(text, 0)
  end
  return view:spawn(seeded(fn, opts.seed, index), table.unpack(args, 1, args.n))
end

local function spawn(self, number, kind, code, opts, index, format, data)
  local args = talk.unpack(format, data)
  if not (args and is_code(kind, code)) or type(opts) ~= "table" or self.job
    or math.type(number) ~= "integer" then
    return BAD
  end
  local ok, f = xpcall(begin, cells.to_error, kind, code, opts, index or nil, args)
  if not ok then
    reply_outcome(self, number, false, f)
    return
  end
  self.job, self.number = f, number
  engines.get_default():task(function()
    f:wait()
    self.job, self.number = nil, nil
    reply_outcome(self, number, f:poll())
  end)
end

local function cancel(self, number, seconds)
  if self.job and self.number == number then
    self.job:cancel(type(seconds) == "number" and seconds >= 0 and seconds or nil)
  end
end

-- -------------------------------------------------------------------- loop

-- Do one command and answer it.  False when nothing more is to be done.
local function obey(self, verb, ...)
  local ok, text = xpcall(Commands[verb], cells.to_error, self, ...)
  if ok and text then
    return text
  elseif not ok then
    self.channel:send_values("failed", talk.to_fields(text))
    self.is_broken = true -- what was sent after it relies on it
    return
  end
  self.channel:send_values("done")
end

-- What is wrong with a message, or nil.
local function handle(self, verb, ...)
  if verb == "cancel" then
    cancel(self, ...)
  elseif self.is_broken then
    return
  elseif verb == "spawn" then
    return spawn(self, ...)
  elseif type(verb) == "string" and Commands[verb] then
    return obey(self, verb, ...)
  else
    return BAD
  end
end

-- Until the client has gone, or somebody takes over.  What is wrong, or nil.
local function listen(self)
  while not self.next do
    local values, message, name = self.channel:recv_values()
    if not values then
      return name ~= "EOF" and message or nil
    end
    message = handle(self, table.unpack(values, 1, values.n))
    if message then
      return message
    end
  end
end

-- The first words of both.
local function greet(channel)
  local ok, problem = channel:send_values(talk.NAME, talk.VERSION, core.version, core.own_pid())
  local values, message, name = channel:recv_values(core.now() + talk.PATIENCE)
  if values then
    return talk.find_stranger(values) or not ok and problem or nil
  elseif name == "EPROTOCOL" then
    return "the client said " .. talk.quote(core.link_heard(channel.link))
  end
  return message
end

---Serve the client at the other end of this channel, until it has gone or has taken
---this process over and is done.
---@param channel fork_map.Channel
---@return boolean? ok
---@return string? message
function M.serve(channel)
  local _ <close> = channel
  local message = greet(channel)
  if message then
    return nil, message
  end
  local self = setmetatable({ channel = channel, args = {}, n_args = 0 }, Server)
  message = engines.get_default():run(function()
    local wrong = listen(self)
    if self.job then
      self.job:cancel(0)
    end
    return wrong
  end)
  if message then
    return nil, message
  elseif self.next then
    self.next()
  end
  return true
end

-- What is printed here and by what is loaded goes to standard error, as standard
-- output is the channel.  The lowest numbers that are free are taken first.
local function replace_streams()
  M.streams = { io.open("/dev/null", "r"), io.open("/dev/stderr", "w") }
end

---A server over the standard streams of this process.
---@return boolean? ok
---@return string? message
function M.serve_standard()
  local channel, message = channels.adopt(0, 1)
  if not channel then
    return nil, message
  end
  replace_streams()
  return M.serve(channel)
end

return M
