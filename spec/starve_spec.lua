-- SPDX-License-Identifier: MIT
-- Calls from a Lua state of which the k-th allocation fails, for every k that is
-- reached: each ends with its values or for lack of memory, and leaves a state
-- that works.

local process = require "support.process"
local starve = require "specs_starve"

local setup = [[
  local fork_map = require "fork_map"
  local n = 0
  fork_map.at_fork {
    before = function() local t = {} t[1] = n end,
    parent = function() local t = { {} } t[2] = n end,
    child = function() local t = { {} } t[2] = n end,
  }
  local engine = fork_map.new {
    on_unhandled = function() n = n + 1 end,
    on_warning = function() n = n + 1 end,
  }
  local function hear(line)
    local t = { line .. n }
    n = n + #t
  end
  local lines = engine:with { output = hear, retries = 1 }
  local captured = engine:with { output = "capture", codec = "lua" }

  -- What a call fails with for lack of memory, and nothing else, is raised.
  local function fails(kind, ...)
    local ok, err = pcall(...)
    assert(not ok, "it did not fail")
    if type(err) == "string" then
      error(err, 0)
    end
    if err.kind ~= kind then
      error(err, 0)
    end
    return err
  end

  function values()
    local list, text = lines(function()
      io.write("one\ntwo\nthree")
      return { 1, 2, { 3 } }, ("x"):rep(1000)
    end)
    assert(list[3][1] == 3 and #text == 1000)
    local key, shared = captured(function(a)
      io.write("printed")
      return a, { a, a }
    end, { "key" })
    assert(key[1] == "key" and shared[1] == shared[2])
  end

  function failures()
    local err = fails("error", lines, function() error { 4 } end)
    if type(err.value) ~= "table" then
      error(err, 0)
    end
    assert(err.value[1] == 4)
    err = fails("exit", captured, function()
      io.write("gone")
      os.exit(3)
    end)
    assert(err.exit_code == 3)
    fails("encode", captured, function() return print end)
  end

  function engines()
    local made <close> = fork_map.new { max_children = 2 }
    local view = made:with { timeout = 5, limits = { memory = "64M" }, name = "starved" }
    assert(view(function() return 1 end) == 1)
  end

  function again()
    assert(engine(function() return 5 end) == 5)
    assert(captured(function() return 6 end) == 6)
    assert(fork_map(function() return 7 end) == 7)
  end
]]

-- A child that stands under a limit cannot tell who refused the memory.
local function is_of_memory(message, in_child)
  return message:find("not enough memory", 1, true) ~= nil
    or in_child and message:find("limits.memory", 1, true) ~= nil
end

-- Every k until one is not reached; returns how many were.
local function sweep(host, name, is_sticky, in_child)
  for k = 1, math.huge do
    local message, reached = starve.run(host, name, k, is_sticky, in_child)
    if message and not (reached and is_of_memory(message, in_child)) then
      error(("%s, allocation %d: %s"):format(name, k, message))
    end
    local after = starve.call(host, "again")
    if after then
      error(("%s, after allocation %d: %s"):format(name, k, after))
    end
    assert.same({}, process.children())
    if not reached then
      return k - 1
    end
  end
end

describe("a Lua state without memory", function()
  process.guard(before_each, after_each)

  local function check(name, in_child)
    local host = starve.open(setup, package.path, package.cpath)
    assert.is_nil(starve.call(host, name))
    assert.is_true(sweep(host, name, true, in_child) > 0)
    local before = starve.bytes(host)
    assert.is_true(sweep(host, name, false, in_child) > 0)
    assert.equal(before, starve.bytes(host))
    assert.equal(0, starve.close(host))
  end

  for _, name in ipairs { "values", "failures", "engines" } do
    it(("raises that, or gives what it was asked for: %s #slow"):format(name), function()
      check(name, false)
    end)

    it(("in a child raises that, or gives what it was asked for: %s #slow"):format(name), function()
      check(name, true)
    end)
  end
end)
