-- SPDX-License-Identifier: MIT
-- The template that others are forked off when nobody says where from.
local core = require "fork_map.core"
local fork_map = require "fork_map"
local process = require "support.process"
local quiet = require "support.quiet"
local sys = require "specs_core"

local after_each, before_each, describe, it = after_each, before_each, describe, it
local assert = require "luassert"

-- Functions that travel capture the globals, which specs have a proxy of.
local _ENV = load "return _ENV" () -- luacheck: ignore
-- luacheck: globals x

describe("the default template #not_portable", function()
  quiet.guard(before_each, after_each)

  it("is made when it is needed first, and kept", function()
    local engine <close> = fork_map.new {}
    assert.same({}, process.children())
    local a = engine:template()
    a:wait()
    assert.equal(2, #process.children())
    local b = engine:template()
    b:wait()
    assert.equal(3, #process.children())
    a:eval("x = 1")
    assert.is_nil(b:spawn(function()
      return x
    end):await())
  end)

  it("is made again when it has died", function()
    local engine <close> = fork_map.new {}
    local t = engine:template()
    t:wait()
    for _ = 1, 3 do
      local pid = engine.default_template.template:pid()
      sys.kill(pid, 9)
      process.eventually(function()
        engine:step(0)
        return process.state(pid) == nil
      end, "it is gone")
      assert.equal(5, engine:template():spawn(function()
        return 5
      end):await())
    end
  end)

  it("is a copy of the program as it was with fork_map.early()", function()
    local script = ([[
      package.path, package.cpath = %q, %q
      local fork_map = require "fork_map"
      mark = "early"
      fork_map.early()
      mark = "late"
      print(fork_map.template():spawn(function() return mark end):await())
    ]]):format(package.path, package.cpath)
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write(script)
    file:close()
    local pipe = io.popen(("%q %q 2>&1"):format(core.own_program(), path))
    assert.equal("early\n", pipe:read("a"))
    pipe:close()
    os.remove(path)
  end)
end)
