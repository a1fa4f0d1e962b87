-- SPDX-License-Identifier: MIT
-- Every moment at which a child or its host can die: each is killed at its k-th
-- system call, for every k.  With FORK_MAP_FULL=1 no k is left out.

local project = require "support.project"

local build = os.getenv("FORK_MAP_BUILD") or "build/dev"
local is_full = os.getenv("FORK_MAP_FULL") == "1"

-- Hosts compare the bytes that malloc has given out; what it keeps in reserve for
-- a thread counts among them, so it may keep none.
local SETTING = "GLIBC_TUNABLES=glibc.malloc.tcache_count=0"

local function kill_each(whom, every, program)
  local output = project.run(("%s LUA_PATH=%s LUA_CPATH=%s %s/kill/kill_each %s %d %s"):format(
    SETTING, project.quote(package.path), project.quote(package.cpath), project.quote(build), whom,
    is_full and 1 or every, program))
  local counts = {}
  for n in output:match("([^\n]*)\n$"):gmatch("%d+") do
    counts[#counts + 1] = tonumber(n)
  end
  if is_full then
    print(("%s of %s: %s"):format(whom, program, output:match("([^\n]*)\n$")))
  end
  return table.unpack(counts)
end

-- Under the sanitizers and where tracing is forbidden nothing can be traced.
describe("a child that is killed at any system call #not_asan", function()
  local function sweep(program)
    local calls, killed, errors, results = kill_each("child", 5, program)
    assert.is_true(calls > 60)
    assert.is_true(killed > 20)
    assert.equal(killed, errors + results)
  end

  for name, text in pairs {
    small = "with a small result",
    large = "with a result larger than the ring",
    captured = "whose output is captured",
    failing = "whose job fails",
    limited = "with limits, a timeout and few descriptors",
  } do
    it(text .. " gives all or an error #slow", function()
      sweep(("%s/kill/kill_jobs %s"):format(project.quote(build), name))
    end)
  end

  it("in a call from Lua gives all or an error #slow", function()
    sweep("lua5.4 spec/kill/kill_call.lua")
  end)

  it("in a map costs no item that is tried again #slow", function()
    sweep("lua5.4 spec/kill/kill_map.lua")
  end)
end)

describe("a template that is killed at any system call #not_asan #not_portable", function()
  for way, text in pairs { fork = "a copy of its host", exec = "a program of its own" } do
    it(("gives what it has forked or an error, as %s #slow"):format(text), function()
      local calls, killed, errors, results = kill_each("template", 11,
        "lua5.4 spec/kill/kill_template.lua " .. way)
      assert.is_true(calls > 200)
      assert.is_true(killed > 40)
      assert.equal(killed, errors + results)
    end)
  end

  it("costs nothing but its result when it is a child of one #slow", function()
    local calls, killed, errors, results = kill_each("third", 5,
      "lua5.4 spec/kill/kill_template.lua child")
    assert.is_true(calls > 60)
    assert.is_true(killed > 20)
    assert.equal(killed, errors + results)
  end)
end)

describe("a host that is killed at any system call #not_asan", function()
  it("leaves no process behind that calls had started #slow", function()
    local _, killed = kill_each("host", 23,
      ("%s/kill/kill_jobs calls"):format(project.quote(build)))
    assert.is_true(killed > 20)
  end)

  for kind, text in pairs {
    list = "that a map had started, its workers replaced, one of them dead",
    item = "that a map with a process for each item had started",
    source = "that work on what an iterator gives",
  } do
    it("leaves no process behind " .. text .. " #slow", function()
      local _, killed = kill_each("host", 11, "lua5.4 spec/kill/kill_map_host.lua " .. kind)
      assert.is_true(killed > 15)
    end)
  end

  it("leaves no template behind, and nothing that one has forked #not_portable #slow", function()
    local _, killed = kill_each("host", 151, "lua5.4 spec/kill/kill_template.lua host")
    assert.is_true(killed > 15)
  end)

  it("leaves none of 32 busy children and of their children #slow", function()
    local _, killed = kill_each("host", 83,
      ("%s/kill/kill_jobs many"):format(project.quote(build)))
    assert.is_true(killed > 10)
  end)
end)
