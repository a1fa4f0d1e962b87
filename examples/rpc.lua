-- SPDX-License-Identifier: MIT
-- Remote calls over the channel of a template: a worker that carries out what it is
-- asked for, one call after the other or all at once, and tells events meanwhile.
--
--   lua5.4 examples/rpc.lua
--
-- Who only wants calls takes a pool, which has more than one worker and replaces those
-- that die.  This shows what a channel is for: a conversation with one process.

local fork_map = require("fork_map")

--------------------------------------------------------------------------------
-- The worker, which is sent along and captures nothing.  A request is {id, name, ...},
-- an answer {id, true, ...} or {id, false, message}, an event {id, "event", value}.

local function work(channel, is_concurrent)
  local forks = require("fork_map")
  local methods, n_met = {}, 0

  -- Counts to n, tells each number, and lets others run in between.
  function methods.count(tell, n)
    for i = 1, n do
      tell(i)
      forks.yield()
    end
    return n
  end

  -- Returns when n calls are in it, and says the number of each.
  function methods.meet(_, n)
    n_met = n_met + 1
    local place = n_met
    while n_met < n do
      forks.yield()
    end
    return place
  end

  function methods.fail()
    error("this cannot be done", 0)
  end

  function methods.die()
    os.exit(3)
  end

  local function answer(request)
    local id, method = request[1], methods[request[2]]
    local function tell(value)
      channel:send { id, "event", value }
    end
    local values = table.pack(pcall(method, tell, table.unpack(request, 3, request.n)))
    channel:send { id, n = values.n + 1, table.unpack(values, 1, values.n) }
  end

  forks.run(function()
    local request = channel:recv()
    while request do
      if is_concurrent then
        forks.task(answer, request)
      else
        answer(request)
      end
      request = channel:recv()
    end
  end)
end

--------------------------------------------------------------------------------
-- The caller's side: a future for each call, and a task that hears what comes.

local Rpc = {}
Rpc.__index = Rpc

-- Something was said about this call.
local function hear(call, kind, ...)
  if kind == "event" then
    call.on_event(...)
  elseif kind then
    call.resolve(...)
  else
    call.reject((...))
  end
  return kind ~= "event"
end

local function listen(self)
  local said, _, problem = self.channel:recv()
  while said do
    local id = said[1]
    if hear(self.open[id], table.unpack(said, 2, said.n or #said)) then
      self.open[id] = nil
    end
    said, _, problem = self.channel:recv()
  end
  for _, call in pairs(self.open) do
    call.reject("the worker is gone: " .. problem)
  end
end

---A worker of its own, whose calls overlap or do not.
function Rpc.new(is_concurrent)
  local channel = fork_map.template():run(work, is_concurrent)
  local self = setmetatable({ channel = channel, open = {}, n = 0 }, Rpc)
  self.listener = fork_map.task(listen, self)
  return self
end

---The future of a call there.  `on_event` gets what that tells, in order, all of it
---before the future settles.
function Rpc:call(on_event, name, ...)
  local id = self.n + 1
  local future, resolve, reject = fork_map.future()
  self.n = id
  self.open[id] = { on_event = on_event, resolve = resolve, reject = reject }
  self.channel:send { id, name, n = select("#", ...) + 2, ... }
  return future
end

function Rpc:close()
  self.channel:close()
  self.listener:wait()
end

--------------------------------------------------------------------------------

local function ignore() end

-- Calls that count to 3 and to 2: what they told, and what they returned.
local function count(rpc)
  local told, futures = {}, {}
  for i, n in ipairs { 3, 2 } do
    futures[i] = rpc:call(function(value)
      told[#told + 1] = ("%d/%d"):format(value, n)
    end, "count", n)
  end
  local returned = fork_map.all(futures):await()
  return table.concat(told, " "), table.concat(returned, " ")
end

local function message_of(future)
  local ok, err = pcall(future.await, future)
  return not ok and err.message
end

local serial = Rpc.new(false)
print("one after the other", count(serial))
print("an error", message_of(serial:call(ignore, "fail")))
serial:close()

local concurrent = Rpc.new(true)
local futures = {}
for i = 1, 3 do
  futures[i] = concurrent:call(ignore, "meet", 3) -- none returns before all are there
end
print("all at once", table.concat(fork_map.all(futures):await(), " "))
print("a crash", message_of(concurrent:call(ignore, "die")))
concurrent:close()
