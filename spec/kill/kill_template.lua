-- SPDX-License-Identifier: MIT
-- Lua hosts of templates, for spec/kill/kill_each.c:
--
--   lua5.4 spec/kill/kill_template.lua fork|exec   its second template is killed
--   lua5.4 spec/kill/kill_template.lua child       the second child of its template is
--   lua5.4 spec/kill/kill_template.lua host        it is killed itself
--
-- The first three end with 0 when they got all that they asked for, with 10 when they
-- were told of the death.  Anything else ends with 1: a wrong value, another error,
-- anything left behind.

local descriptors = require "support.descriptors"
local fork_map = require "fork_map"
local sys = require "specs_core"

local function is_error(err, ...)
  if getmetatable(err) ~= fork_map.Error then
    return false
  end
  for _, kind in ipairs { ... } do
    if err.kind == kind then
      return true
    end
  end
  return false
end

-- Renaming marks the last moment at which not everything is done.
local function use_template(way, makes_mark)
  local t <close> = fork_map.template { from = way }
  local futures = {}
  local ok, err = pcall(function()
    t:eval("base = ...", 100):send_arg "first"
    for i = 1, 5 do
      futures[i] = t:spawn(function(text, n)
        return text, _ENV.base + n, ("x"):rep(n * 10000)
      end, i)
    end
    if makes_mark then
      t:eval "os.rename('', '')"
    end
    t:wait()
  end)
  assert(ok or is_error(err, "signal", "spawn"), tostring(err))
  local is_whole = ok
  for i, future in ipairs(futures) do
    local results = table.pack(pcall(future.await, future))
    if results[1] then
      assert(results.n == 4 and results[2] == "first" and results[3] == 100 + i and
        results[4] == ("x"):rep(i * 10000), "a wrong value")
    else
      assert(is_error(results[2], "spawn"), tostring(results[2]))
      is_whole = false
    end
  end
  t:close()
  while t:pid() do
    fork_map.engine():step(1)
  end
  return is_whole
end

local function finish(is_whole)
  fork_map.engine():close()
  assert(select(2, sys.wait_any()) == "ECHILD", "a child is left")
  os.exit(is_whole and 0 or 10)
end

local hosts = {}

for _, way in ipairs { "fork", "exec" } do
  hosts[way] = function()
    assert(use_template(way, false))
    local before = descriptors.count()
    local is_whole = use_template(way, true)
    assert(use_template(way, false), "the next template")
    assert(descriptors.count() == before, "descriptors")
    finish(is_whole)
  end
end

function hosts.child()
  local t <close> = fork_map.template { from = "fork" }
  local function job(text)
    local results = { text, ("x"):rep(100000) }
    os.rename("", "")
    return table.unpack(results)
  end
  local function call()
    local results = table.pack(pcall(function()
      return t:spawn(job, "last"):await()
    end))
    assert(results[1] and results.n == 3 and results[2] == "last" and #results[3] == 100000 or
      is_error(results[2], "signal"), tostring(results[2]))
    return results[1]
  end
  assert(call())
  local is_whole = call()
  assert(call(), "the next call")
  t:close()
  finish(is_whole)
end

-- Each process has company that never ends, and works until its host is gone.
local function work(host)
  local sys = require "specs_core" -- luacheck: ignore
  sys.fork_and_hold()
  sys.sleep(0.002)
  while not sys.kill(host, 0) do
    sys.sleep(1)
  end
end

local function echo(channel)
  while true do
    local value = channel:recv()
    if value == nil then
      return
    end
    channel:send(value)
  end
end

function hosts.host()
  local host = sys.getpid()
  for _, way in ipairs { "exec", "fork" } do
    local t <close> = fork_map.template { from = way }
    t:eval(function()
      require("specs_core").fork_and_hold()
    end)
    local other = t:fork()
    local channel = other:run(echo)
    local futures = {}
    for i = 1, 5 do
      futures[i] = t:spawn(work, host)
    end
    assert(channel:send "x" and channel:recv() == "x")
    for i = 1, 5 do
      futures[i]:await()
    end
    channel:close()
  end
  finish(true)
end

if arg[1] == "host" then
  os.rename("", "")
end
hosts[arg[1]]()
