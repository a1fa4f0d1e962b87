-- SPDX-License-Identifier: MIT
-- Loops that hosts have, each with the same few verbs for the specs of all:
--
--   open(), close()   around each test
--   go(fn)            start a coroutine of the loop
--   sleep(seconds)    the loop's own, in such a coroutine
--   run()             until nothing is left to do; what coroutines raised is listed
--
-- A library that is not there is not in the table.

local busted = require "busted"
local fork_map = require "fork_map"
local process = require "support.process"
local sys = require "specs_core"

local M = {}

local function try(name)
  local ok, library = pcall(require, name)
  return ok and library or nil
end

-- The errors of coroutines, as far as the loop tells them to somebody.
local errors

-- -------------------------------------------------------------------- libuv

local uv = try "luv"

-- Resume, for callbacks: what they raise would end the process.
local function resume(co)
  local ok, err = coroutine.resume(co)
  if not ok then
    errors[#errors + 1] = err
  end
end

local function count_handles()
  local n = 0
  uv.walk(function(handle)
    if not handle:is_closing() then
      n = n + 1
    end
  end)
  return n
end

M.luv = uv and {
  name = "luv",
  tells_unhandled = true, -- nobody else hears of errors in coroutines
  open = function() errors = {} end,
  close = function()
    assert(count_handles() == 0, "handles are left")
  end,
  go = function(fn)
    resume(coroutine.create(fn))
  end,
  sleep = function(seconds)
    local co, timer = coroutine.running(), uv.new_timer()
    timer:start(math.ceil(seconds * 1000), 0, function()
      timer:close()
      resume(co)
    end)
    coroutine.yield()
  end,
  run = function()
    uv.run()
    return errors
  end,
}

-- ------------------------------------------------------------------ cqueues

local cqueues = try "cqueues"
local controller

M.cqueues = cqueues and {
  name = "cqueues",
  has_many = true, -- loops: an engine is attached to the one that runs
  open = function()
    errors, controller = {}, cqueues.new()
  end,
  close = function()
    controller:close()
    controller = nil
  end,
  go = function(fn)
    controller:wrap(fn)
  end,
  sleep = function(seconds)
    cqueues.sleep(seconds)
  end,
  run = function()
    for err in controller:errors() do
      errors[#errors + 1] = err
    end
    return errors
  end,
}

-- -------------------------------------------------------------------- copas

-- Debian has no copas for this version of Lua, but the files need no other one.
local function try_copas()
  local was = package.path
  package.path = was .. ";/usr/share/lua/5.3/?.lua;/usr/share/lua/5.2/?.lua"
  local copas = try "copas"
  package.path = was
  return copas
end

local copas = try_copas()
local socket = copas and require "socket"
local n_threads = 0
local ping -- a socket that has something to read whenever it was written to

local function copas_thread(fn)
  copas.setErrorHandler(function(err)
    errors[#errors + 1] = err
    n_threads = n_threads - 1
  end)
  fn()
  n_threads = n_threads - 1
end

-- Old versions know no time, and their loop has no end.
local function copas_turn()
  ping:send("x")
  copas.receive(ping, 1)
end

M.copas = copas and {
  name = "copas",
  loop_is_endless = not copas.finished,
  waits_by_descriptor = not copas.finished,
  open = function()
    errors, n_threads = {}, 0
    copas.autoclose = false
    ping = socket.udp()
    ping:settimeout(0)
    ping:setsockname("127.0.0.1", 0)
    ping:setpeername(ping:getsockname())
  end,
  close = function()
    ping:close()
  end,
  go = function(fn)
    n_threads = n_threads + 1
    copas.addthread(function()
      copas_thread(fn)
    end)
  end,
  sleep = function(seconds)
    if copas.pause then
      copas.pause(seconds)
      return
    end
    local deadline = sys.now() + seconds
    repeat
      copas_turn()
    until sys.now() >= deadline
  end,
  run = function()
    if copas.finished then
      copas.loop()
    else
      while n_threads > 0 do
        copas.step(10)
      end
    end
    return errors
  end,
} or nil

-- ---------------------------------------------------------- one of the host's

-- The smallest loop that is one: coroutines that wait for a descriptor, or for
-- time, are looked at every other millisecond.
local waiting = {}

local function tiny_wait(fd, seconds)
  local deadline = seconds and sys.now() + seconds
  coroutine.yield(fd, deadline)
end

local function tiny_resume(co)
  local ok, fd, deadline = coroutine.resume(co)
  if not ok then
    errors[#errors + 1] = fd
  elseif coroutine.status(co) ~= "dead" then
    waiting[co] = { fd = fd, deadline = deadline }
  end
end

M.tiny = {
  name = { wait = tiny_wait },
  waits_by_descriptor = true,
  open = function()
    errors, waiting = {}, {}
  end,
  close = function()
    assert(next(waiting) == nil, "somebody waits")
  end,
  go = function(fn)
    tiny_resume(coroutine.create(fn))
  end,
  sleep = function(seconds)
    tiny_wait(nil, seconds)
  end,
  run = function()
    while next(waiting) do
      local due = {}
      for co, entry in pairs(waiting) do
        if entry.fd and sys.is_readable(entry.fd)
          or entry.deadline and sys.now() >= entry.deadline then
          due[#due + 1] = co
        end
      end
      for _, co in ipairs(due) do
        waiting[co] = nil
        tiny_resume(co)
      end
      if #due == 0 then
        sys.sleep(0.002)
      end
    end
    return errors
  end,
}

-- ------------------------------------------------------------------ apparatus

-- Children that come to it stand still until it is opened, for all.
local function new_gate()
  local reader, writer = sys.pipe()
  return {
    pass = function(...)
      while not sys.is_readable(reader, 10) do end
      return ...
    end,
    open = function()
      sys.write(writer, "x")
    end,
    close = function()
      sys.close(reader)
      sys.close(writer)
    end,
  }
end

---Tests of one of them, in an engine that is attached to it: `fn(world, host)`.
function M.describe(name, fn)
  local host = M[name]
  if not host then
    busted.describe(name .. " #not_portable", function()
      busted.pending("is not installed")
    end)
    return
  end
  busted.describe(name .. " #not_portable", function()
    local check
    process.guard(busted.before_each, function(found) check = found end)
    local world = { host = host }
    busted.before_each(function()
      host.open()
      world.unhandled = {}
      world.gate = new_gate()
      world.engine = fork_map.new { grace = 0, on_unhandled = function(err, why)
        table.insert(world.unhandled, why .. ": " .. tostring(err))
      end }
      world.engine:attach(host.name)
    end)
    busted.after_each(function()
      world.engine:close()
      world.gate.close()
      host.close()
      world.engine = nil
      check()
    end)
    fn(world, host)
  end)
end

-- Whether engines have descriptors here, without which none can be attached.
local probe <close> = fork_map.new()
M.has_descriptors = probe:pollfd() ~= nil

return M
