-- SPDX-License-Identifier: MIT
-- What of fork_map an executed template loads, and when.
local core = require "fork_map.core"
local fork_map = require "fork_map"
local quiet = require "support.quiet"

local after_each, before_each, describe, it = after_each, before_each, describe, it
local assert = require "luassert"

-- Functions that travel capture the globals, which specs have a proxy of.
local _ENV = load "return _ENV" () -- luacheck: ignore

local tag = core.has_templates and "" or " #not_portable"

describe("an executed template" .. tag, function()
  quiet.guard(before_each, after_each)

  local function has_all()
    return package.loaded["fork_map.engine"] ~= nil
  end

  local function nested()
    return require("fork_map").with {}(function() return "below" end)
  end

  it("has no more of fork_map than it needs, until code says that it needs that", function()
    local engine <close> = fork_map.new {}
    local t = engine:template { from = "exec" }
    assert.is_false(t:spawn(has_all):await())
    assert.equal("below", t:spawn(nested):await())
    assert.is_true(t:spawn(has_all):await())
    assert.is_true(t:fork():spawn(has_all):await())
  end)

  it("loads it when it is forked again, which is for channels", function()
    local engine <close> = fork_map.new {}
    local t = engine:template { from = "exec" }
    assert.is_false(t:fork():spawn(has_all):await())
    assert.is_true(t:fork():spawn(has_all):await())
  end)

  it("loads it for what its eval() says", function()
    local engine <close> = fork_map.new {}
    local t = engine:template { from = "exec" }
    t:eval("function later() return require 'fork_map' end")
    assert.is_true(t:spawn(has_all):await())
  end)

  it("finds it where it was, whatever becomes of the paths", function()
    local engine <close> = fork_map.new {}
    local t = engine:template { from = "exec" }
    t:eval("package.path, package.cpath = '', ''")
    assert.equal("below", t:spawn(nested):await())
    assert.equal("", t:spawn(function() return package.path end):await())
    local channel <close> = t:fork():run(function(ch) ch:send("here") end)
    assert.equal("here", channel:recv())
  end)

  it("goes on when it cannot be loaded, which the code that needs it meets", function()
    local engine <close> = fork_map.new {}
    local t = engine:template { from = "exec" }
    t:eval("package.searchers[2] = function() return 'nowhere' end")
    local f = t:spawn(nested)
    assert.matches("module 'fork_map' not found", select(2, pcall(f.await, f)).message)
    assert.equal("ready", t:status())
    assert.is_false(t:spawn(has_all):await())
  end)
end)

-- Tags tell what is left out where: this is for the builds that leave out the rest.
if not core.has_templates then
  describe("a build without templates", function()
    it("has none to execute", function()
      local ok, err = pcall(fork_map.template, { from = "exec" })
      assert.is_false(ok)
      assert.equal("spawn", err.kind)
    end)
  end)
end
