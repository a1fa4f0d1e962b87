-- SPDX-License-Identifier: MIT
-- Loops of hosts: how their coroutines wait, and who steps the engine in them.
--
-- A coroutine that waits is parked: its context (see fork_map/loop.lua) stands for
-- the task that it is not, and is woken once, by what it waits for, a deadline, a
-- nursery, or the end of the engine.  An adapter knows how to
--
--   suspend(context)   leave the running coroutine, until resume(context) or earlier
--   resume(context)    have it go on, from the host's loop and not from here
--   locate()           the host's loop that runs, or nil
--   start(loop, place) start a driver there: what has drive_step() called whenever
--                      the engine's descriptor is readable, for as long as that
--                      returns true; returns a function that has it look again
--   is_inside()        whether the running coroutine is one of that loop
--
-- A place is a loop of the host's with what waits in it.  Home is where it has a
-- driver for as long as there is something to settle; other places have theirs
-- while somebody waits there.

local core = require "fork_map.core"
local loops = require "fork_map.loop"

local M = {}

---@class fork_map.Adapter
local Adapter = {}
Adapter.__index = Adapter

local function new_adapter(fields)
  fields.places = setmetatable({}, { __mode = "k" })
  fields.home = setmetatable({}, { __mode = "v" })
  fields.parked = {}
  return setmetatable(fields, Adapter)
end

-- -------------------------------------------------------------------- drivers

local function is_needed(self, loop, place)
  return not (self.has_left or loop.is_closed or loop:is_stale())
    and (place.n_parked > 0 or loop.n_live > 0 and place == self.home[1])
end

-- One step for a driver, or a look whether it is to go on.  False when it is to
-- end; it may be started again then.
local function drive_step(self, loop, place, only_looks)
  if not only_looks and is_needed(self, loop, place) then
    place.is_stepping = true
    local ok, err = pcall(loop.step, loop, 0)
    place.is_stepping = false
    if not ok then -- as by a hook of the host
      place.look = nil
      error(err, 0)
    end
  end
  if is_needed(self, loop, place) then
    return true
  end
  place.look = nil
  return false
end

local function get_place(self)
  local key = self.locate()
  if not key then
    return nil
  end
  local place = self.places[key]
  if not place then
    place = { n_parked = 0, key = setmetatable({ key }, { __mode = "v" }) }
    self.places[key] = place
  end
  return place
end

local function ensure_driver(self, loop, place)
  if not place.look and is_needed(self, loop, place) then
    place.look = self.start(loop, place, function(only_looks)
      return drive_step(self, loop, place, only_looks)
    end)
  end
end

---Something has begun that is to be settled.
function Adapter:drive(loop)
  if not self.start then
    return
  end
  local home = self.home[1] or get_place(self)
  if home then
    self.home[1] = home
    ensure_driver(self, loop, home)
  end
end

-- A driver that waits for what will not come would keep the host's loop going.
local function look_around(self, loop)
  for _, place in pairs(self.places) do
    if place.look and not place.is_stepping and not is_needed(self, loop, place) then
      place.look()
    end
  end
end

---Everything has settled.
Adapter.rest = look_around

---The engine's descriptor is about to be closed.
function Adapter:leave(loop)
  self.has_left = true
  if self.forget then
    self.forget(loop)
  end
  look_around(self, loop)
  self.spare = {}
end

---The engine was closed: what nobody has woken waits for time, or for a nursery.
function Adapter:close()
  local contexts = {}
  for context in pairs(self.parked) do
    contexts[#contexts + 1] = context
  end
  for _, context in ipairs(contexts) do
    context:wake(context.waits, "closed")
  end
end

-- ------------------------------------------------------------------- contexts

local Context = loops.Context

-- It is not waited for any more in its place.
local function unpark(self)
  local place = self.adapter.parked[self]
  self.adapter.parked[self] = nil
  if place then
    place.n_parked = place.n_parked - 1
    look_around(self.adapter, self.cell.loop)
  end
end

---End the wait of that number, if it still lasts.
function Context:wake(number, why)
  if self.is_waiting and self.waits == number then
    self.is_waiting, self.why = false, why
    unpark(self)
    if self.is_suspended then
      self.adapter.resume(self)
    end
  end
end

-- Left also by an error of the host's, or by coroutine.close().
local Parking = {}

function Parking:__close()
  local context = self.context
  context.is_waiting, context.is_suspended, context.co = false, false, nil
  unpark(context)
  loops.end_wait(context)
  if context.adapter.finish then
    context.adapter.finish(context)
  end
end

local NOWHERE = { n_parked = 0 }

---Suspend the running coroutine, which is that of the context, until it is woken;
---returns why.
function Context:pause()
  local loop = self.cell.loop
  local adapter = loop.adapter
  local place = adapter.start and get_place(adapter) or NOWHERE
  -- A nursery knows its context, and may not keep an abandoned coroutine alive.
  self.adapter, self.is_suspended, self.co = adapter, true, coroutine.running()
  adapter.parked[self] = place
  place.n_parked = place.n_parked + 1
  local _ <close> = setmetatable({ context = self }, Parking)
  if adapter.start then
    ensure_driver(adapter, loop, place)
  end
  while self.is_waiting do
    adapter.suspend(self)
  end
  return self.why
end

-- ---------------------------------------------------------------- descriptors
-- Adapters that know nothing but to wait for a descriptor: each that waits has one
-- of its own, a beacon, which is lit when it is woken.

-- Beacons that wait to be used again.
local SPARE_MOST = 8

local function take_beacon(self, loop)
  local n = #self.spare
  if n > 0 then
    return table.remove(self.spare)
  end
  loop:set_polled()
  return core.beacon(loop.core)
end

-- Without `start` the one that waits steps the engine itself.
local function waiting_adapter(wait, fields)
  local self = new_adapter(fields)
  self.spare = {}
  function self.suspend(context)
    local loop = context.cell.loop
    if not self.start then
      loop:step(0)
    end
    if not context.is_waiting then
      return
    end
    context.beacon = context.beacon or take_beacon(self, loop)
    wait(core.beacon_fd(context.beacon), loop:get_timeout())
  end
  function self.resume(context)
    if context.beacon then
      core.beacon_light(context.beacon)
    end
  end
  function self.finish(context)
    local beacon = context.beacon
    context.beacon = nil
    if beacon and #self.spare < SPARE_MOST and not self.has_left
      and core.beacon_dim(beacon) then
      table.insert(self.spare, beacon)
    end
  end
  return self
end

local function always()
  return true
end

-- ------------------------------------------------------------------- libraries

local makers = {}

function makers.cqueues()
  local cqueues = require "cqueues"
  local condition = require "cqueues.condition"
  local adapter = {}
  function adapter.is_inside()
    local _, is_own = cqueues.running()
    return is_own
  end
  function adapter.locate()
    return (cqueues.running())
  end
  function adapter.suspend(context)
    context.condition = context.condition or condition.new()
    cqueues.poll(context.condition)
  end
  function adapter.resume(context)
    if context.condition then
      context.condition:signal()
    end
  end
  function adapter.start(loop, place, step)
    local controller = place.key[1]
    local object = { pollfd = loop:get_pollfd(), events = "r" }
    local looks = condition.new()
    local ok = controller and pcall(controller.wrap, controller, function()
      local goes_on = step(true) -- it was told before it has begun, perhaps
      while goes_on do
        cqueues.poll(object, looks)
        goes_on = step()
      end
    end)
    return ok and function()
      looks:signal()
    end or nil
  end
  function adapter.forget(loop)
    cqueues.cancel(loop:get_pollfd())
  end
  return new_adapter(adapter)
end

-- What copas waits on: an object that tells its descriptor, of which every second
-- read succeeds.
local function new_readable(fd)
  local tries = 0
  local self = {}
  function self.getfd()
    return self.is_over and -1 or fd
  end
  function self.dirty()
    return false
  end
  function self.settimeout()
    return 1
  end
  function self.close()
    self.is_over = true
  end
  function self.receive()
    tries = tries + 1
    if tries % 2 == 0 or self.is_over then
      return "", nil
    end
    return nil, "timeout", ""
  end
  return self
end

local NOTHING = { run = function() end }

function makers.copas()
  local copas = require "copas"
  local can_wake = copas.pauseforever ~= nil -- versions of old cannot
  local adapter = { is_inside = always }
  local here = {}
  function adapter.locate()
    return here
  end
  function adapter.start(loop, _, step)
    local object = new_readable(loop:get_pollfd())
    copas.addthread(function()
      while true do
        if not object.is_over then
          copas.receive(object, 1)
        end
        if not step() then
          return
        elseif object.is_over then
          object = new_readable(loop:get_pollfd())
        end
      end
    end)
    return function()
      if can_wake then
        copas.close(object)
      elseif adapter.has_left then
        object.close()
      else
        loop:push_due(NOTHING)
      end
    end
  end
  if not can_wake then
    return waiting_adapter(function(fd)
      copas.receive(new_readable(fd), 1)
    end, adapter)
  end
  function adapter.suspend()
    copas.pauseforever()
  end
  function adapter.resume(context)
    copas.wakeup(context.co)
  end
  return new_adapter(adapter)
end

-- What a coroutine raises that nobody but the loop has resumed.
local function report(context, co, err)
  local traceback = debug.traceback(co, tostring(err))
  if getmetatable(err) ~= core.Error then
    err = loops.to_error(err)
    err.traceback = traceback
  end
  context.cell.loop:report(err, "callback")
end

function makers.luv()
  local uv = require "luv"
  local adapter = { is_inside = always }
  local here = {}
  local woken = {}
  function adapter.locate()
    return here
  end
  adapter.suspend = function()
    coroutine.yield()
  end
  local function resume_all()
    local contexts = woken
    woken = {}
    for _, entry in ipairs(contexts) do
      local context, co = entry.context, entry.context.co
      if context.is_suspended and context.waits == entry.number
        and coroutine.status(co) == "suspended" then
        local ok, err = coroutine.resume(co)
        if not ok then
          report(context, co, err)
        end
      end
    end
  end
  function adapter.resume(context)
    woken[#woken + 1] = { context = context, number = context.waits }
    if #woken == 1 then
      local timer = uv.new_timer()
      timer:start(0, 0, function()
        timer:close()
        resume_all()
      end)
    end
  end
  function adapter.start(loop, _, step)
    local poll = assert(uv.new_poll(loop:get_pollfd()))
    local function close()
      if not poll:is_closing() then
        poll:close()
      end
    end
    assert(poll:start("r", function()
      local ok, goes_on = pcall(step)
      if not ok or not goes_on then
        close()
      end
      if not ok then
        error(goes_on, 0)
      end
    end))
    return function()
      close()
      step()
    end
  end
  return new_adapter(adapter)
end

---An adapter by the name of a library, or the host's own.
---@return fork_map.Adapter? adapter
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
  return waiting_adapter(adapter.wait, { is_inside = always })
end

---@return string? text what is wrong
function M.attach(loop, adapter)
  local found, text = M.find(adapter)
  if not found then
    return text
  elseif loop.is_closed then
    return "fork_map: engine:attach: the engine is closed"
  elseif not loop:get_pollfd() then
    return "fork_map: engine:attach: the engine has no descriptor to wait for"
  end
  if loop.adapter then
    loop.adapter:leave(loop)
  end
  loop.adapter = found
  if found.start then
    found.home[1] = get_place(found)
  end
  if loop.n_live > 0 then
    found:drive(loop)
  end
end

return M
