-- SPDX-License-Identifier: MIT
-- A template from the inside: what its host has it do, one command after the other,
-- and what its children begin with.
--
-- Its state is the Lua state itself, which every child has a copy of, and what was
-- sent: the arguments and descriptors that functions get first.
--
-- Every page of it is one that the kernel copies for each child, and takes down again.
-- So a program that only serves loads this file and no other part of fork_map before
-- that is needed.

local core = require "fork_map.core"
local travel = require "fork_map.travel"

local M = {}

-- Where this file was found, the rest is, whatever becomes of these.
local package, own_require = package, require
local own_path, own_cpath = package.path, package.cpath

-- Another part of fork_map.
local function load_part(name)
  local path, cpath = package.path, package.cpath
  package.path, package.cpath = own_path, own_cpath
  local ok, part = pcall(own_require, name)
  package.path, package.cpath = path, cpath
  return ok and part or error(part, 0)
end

-- Commands and jobs by their numbers; the same in fork_map/template.lua.
M.COMMANDS = { setup = 1, require = 2, eval = 3, arg = 4, fd = 5, run = 6, know = 7, load = 8 }
M.JOBS = { call = 1, serve = 2, kept = 3 }

-- What was sent, in order.
local sent = { n = 0 }

-- Code that was sent before, by numbers: children need not load it.
local known = {}

-- What is to be done when this process has left its loop.
local takeover

-- What a snapshot was made with, for jobs of the kind "kept": functions by names, and
-- `codec`, a pair of them.
local kept

local function keep(value)
  sent.n = sent.n + 1
  sent[sent.n] = value
end

local function find_function(kind, text)
  if kind == "known" then
    return known[text]
  end
  local fn, problem = travel.unpack_code(kind, text)
  return fn or error(problem, 0)
end

-- ---------------------------------------------------------------- commands

local commands = {}

commands[M.COMMANDS.setup] = function(_, path, cpath)
  package.path, package.cpath = path, cpath
end

commands[M.COMMANDS.require] = function(_, ...)
  for _, name in ipairs { ... } do
    require(name)
  end
end

commands[M.COMMANDS.eval] = function(_, kind, text, ...)
  find_function(kind, text)(...)
end

commands[M.COMMANDS.arg] = function(_, ...)
  for i = 1, select("#", ...) do
    keep((select(i, ...)))
  end
end

commands[M.COMMANDS.fd] = function(fds)
  for _, fd in ipairs(fds) do
    keep(fd)
  end
end

commands[M.COMMANDS.know] = function(_, number, kind, text)
  known[number] = find_function(kind, text)
end

-- The rest of fork_map, for children: what is wrong with it they meet themselves.
commands[M.COMMANDS.load] = function()
  pcall(load_part, "fork_map")
end

-- The first descriptor is the other end of a channel.
commands[M.COMMANDS.run] = function(fds, kind, text, ...)
  local fn = find_function(kind, text)
  takeover = {
    fn = fn, fd = fds[1], args = table.pack(...), channels = load_part "fork_map.channel",
  }
  return true
end

local function carry_out(kind, fds, ...)
  return commands[kind](fds, ...)
end

-- -------------------------------------------------------------------- jobs

-- What was sent, then the others.
local function with_sent(n, ...)
  if n == 0 then
    return ...
  end
  local values = table.move({ ... }, 1, select("#", ...), sent.n + 1, { table.unpack(sent, 1, n) })
  return table.unpack(values, 1, n + select("#", ...))
end

local jobs = {}

jobs[M.JOBS.call] = function(codec, seed, index, kind, text, ...)
  if seed then
    core.random_seed(seed, index)
  end
  return codec, find_function(kind, text), with_sent(sent.n, ...)
end

jobs[M.JOBS.serve] = function()
  return "auto", function()
    return M.serve(core.server_socket())
  end
end

jobs[M.JOBS.kept] = function(codec, name, ...)
  return codec or kept.codec, kept[name], ...
end

local function find_job(kind, ...)
  return jobs[kind](...)
end

-- ------------------------------------------------------------------- serving

local function take_over()
  local channel, message = takeover.channels.adopt(takeover.fd)
  if not channel then
    error("fork_map.serve: " .. message, 0)
  end
  local args = takeover.args
  return takeover.fn(channel, with_sent(sent.n, table.unpack(args, 1, args.n)))
end

---Serve the host that this process was started by, over the socket whose number it
---gave, until it lets go of the template.  When it has a function take the process
---over, that is called, and this returns what it returns.
---
---A host that is its own interpreter calls this when its arguments say so: the number
---is the last one.  "-" serves over the standard streams, for `connect`.
---@param fd integer|string
---@return any ...
function M.serve(fd)
  if fd == "-" then
    local ok, message = load_part "fork_map.remote_server".serve_standard()
    return ok or error("fork_map.serve: " .. message, 2)
  end
  local number = math.tointeger(tonumber(fd))
  if not number then
    error(("fork_map.serve: the number of a descriptor is expected, not %s")
      :format(tostring(fd)), 2)
  end
  local leaves, message = core.serve(number, carry_out, find_job)
  if leaves then
    return take_over()
  elseif leaves == nil then
    error("fork_map.serve: " .. message, 2)
  end
end

---What a snapshot of this process does: `functions` are for jobs of the kind "kept".
---@param functions? table<string, function>
---@return fun()
function M.new_snapshot(functions)
  return function()
    kept, sent, takeover = functions, { n = 0 }, nil
    return M.serve(core.server_socket())
  end
end

return M
