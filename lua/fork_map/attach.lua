-- SPDX-License-Identifier: MIT
-- Loops of hosts: how their coroutines wait, and who steps the engine in them.
--
-- An adapter is a table.  `wait(fd, timeout)` suspends the running coroutine
-- until the descriptor is readable or the time is over.  `drive(loop)`, if it is
-- there, is called when something begins that the loop has to settle; it has the
-- engine stepped, by drive_step(), as long as there is something.

local loops = require "fork_map.loop"

local M = {}

local makers = {}

-- One step for a driver; false when there is nothing left that could settle.
local function drive_step(loop)
  if loop.n_live > 0 and not loop.is_closed and not loop:is_stale() then
    loop:step(0)
  end
  return loop.n_live > 0 and not loop.is_closed
end

-- A driver that is a coroutine of the host's loop: `spawn(fn)` starts one.
local function coroutine_driver(adapter, spawn)
  return function(loop)
    if loop.is_driven then
      return
    end
    loop.is_driven = true
    spawn(function()
      while drive_step(loop) do
        adapter.wait(loop:get_pollfd(), loop:get_timeout())
      end
      loop.is_driven = false
    end)
  end
end

function makers.cqueues()
  local cqueues = require "cqueues"
  local adapter = {}
  function adapter.wait(fd, timeout)
    cqueues.poll({ pollfd = fd, events = "r", timeout = timeout }, timeout)
  end
  adapter.drive = coroutine_driver(adapter, function(fn)
    local controller = cqueues.running()
    if controller then
      controller:wrap(fn)
    end
  end)
  return adapter
end

function makers.copas()
  local copas = require "copas"
  -- What copas waits on: an object that tells its descriptor, of which a read
  -- succeeds after the first try.
  local function waiter(fd)
    local tries = 0
    return {
      getfd = function() return fd end,
      dirty = function() return false end,
      settimeout = function() return 1 end,
      receive = function()
        tries = tries + 1
        if tries > 1 then
          return "", nil
        end
        return nil, "timeout", ""
      end,
    }
  end
  local adapter = {}
  function adapter.wait(fd, timeout)
    local object = waiter(fd)
    copas.settimeouts(object, nil, nil, timeout)
    copas.receive(object, 1)
  end
  adapter.drive = coroutine_driver(adapter, function(fn)
    copas.addthread(fn)
  end)
  return adapter
end

function makers.luv()
  local uv = require "luv"
  local adapter = {}
  function adapter.wait(fd, timeout)
    local co = coroutine.running()
    local poll = uv.new_poll(fd)
    local timer = timeout and uv.new_timer()
    local is_over = false
    local function finish()
      if is_over then
        return
      end
      is_over = true
      poll:close()
      if timer then
        timer:close()
      end
      local ok, err = coroutine.resume(co)
      if not ok then
        error(err, 0)
      end
    end
    poll:start("r", finish)
    if timer then
      timer:start(math.ceil(timeout * 1000), 0, finish)
    end
    coroutine.yield()
  end
  function adapter.drive(loop)
    if loop.is_driven then
      return
    end
    loop.is_driven = true
    local poll = uv.new_poll(loop:get_pollfd())
    local first = uv.new_timer()
    local function step()
      if not drive_step(loop) then
        loop.is_driven = false
        poll:close()
        first:close()
      end
    end
    poll:start("r", step)
    first:start(0, 0, step)
  end
  return adapter
end

---An adapter by the name of a library, or the host's own.
---@return table? adapter
---@return string? text what is wrong
function M.find(adapter)
  if type(adapter) == "string" then
    local make = makers[adapter]
    if not make then
      return nil, ('fork_map: engine:attach: "%s" is none of "luv", "cqueues", "copas"')
        :format(adapter)
    end
    local ok, made = pcall(make)
    if not ok then
      return nil, ("fork_map: engine:attach: %s"):format(tostring(made))
    end
    return made
  elseif type(adapter) ~= "table" or type(adapter.wait) ~= "function" then
    return nil, "fork_map: engine:attach: the name of a library, or a table with a function wait"
  end
  return { wait = adapter.wait }
end

---@return string? text what is wrong
function M.attach(loop, adapter)
  local found, text = M.find(adapter)
  if not found then
    return text
  elseif not loop:get_pollfd() then
    return "fork_map: engine:attach: the engine has no descriptor to wait for"
  end
  loop.adapter = found
  if found.drive and loop.n_live > 0 then
    found.drive(loop)
  end
end

M.find_refusal = loops.find_refusal

return M
