-- SPDX-License-Identifier: MIT
-- What only one of the loops of spec/support/host_loops.lua has.
local hosts = require "support.host_loops"

local function double(x)
  return 2 * x
end

hosts.describe("luv", function(w, host)
  it("goes on waiting when somebody else resumes the coroutine", function()
    local value, co
    host.go(function()
      co = coroutine.running()
      value = w.engine:spawn(w.gate.pass, "value"):await()
    end)
    assert.is_true(coroutine.resume(co))
    assert.is_nil(value)
    w.gate.open()
    assert.same({}, host.run())
    assert.equal("value", value)
  end)

  it("lets go of a coroutine that the host closes", function()
    local co, closed
    host.go(function()
      co = coroutine.running()
      local _ <close> = setmetatable({}, { __close = function() closed = true end })
      w.engine:sleep(100)
    end)
    assert.is_true(coroutine.close(co))
    assert.is_true(closed)
    assert.same({}, host.run())
  end)

  it("does not resume a coroutine that has gone on to wait for something else", function()
    local order, co = {}, nil
    host.go(function()
      co = coroutine.running()
      w.engine:spawn(double, 1):await()
      order[#order + 1] = "awaited"
      coroutine.yield()
      order[#order + 1] = "resumed"
    end)
    local f = w.engine:spawn(double, 2)
    f:on_settle(function() end)
    assert.same({}, host.run())
    assert.same({ "awaited" }, order)
    assert.is_true(coroutine.resume(co))
    assert.same({ "awaited", "resumed" }, order)
  end)
end)

hosts.describe("cqueues", function(w, host)
  it("steps the engine below a coroutine of a controller", function()
    local value
    host.go(function()
      value = coroutine.wrap(function()
        return w.engine:spawn(double, 4):await()
      end)()
    end)
    assert.same({}, host.run())
    assert.equal(8, value)
  end)

  it("serves several controllers, one after the other and one in another", function()
    local cqueues = require "cqueues"
    local sum = 0
    local function add(x)
      local value = w.engine:spawn(double, x):await()
      sum = sum + value
    end
    local inner = cqueues.new()
    inner:wrap(add, 10)
    host.go(function()
      add(1)
      assert(inner:loop())
      inner:wrap(add, 100)
      assert(inner:loop())
      add(1000)
    end)
    assert.same({}, host.run())
    inner:wrap(add, 10000)
    assert.is_true(inner:loop())
    inner:close()
    assert.equal(22222, sum)
  end)

  it("lets a controller end though another one has something outstanding", function()
    local cqueues = require "cqueues"
    local f = w.engine:spawn(w.gate.pass, 1)
    local inner = cqueues.new()
    inner:wrap(function() w.engine:spawn(double, 1):await() end)
    host.go(function()
      w.engine:attach("cqueues")
      f:await()
    end)
    host.go(function()
      assert(inner:loop())
      w.gate.open()
    end)
    assert.same({}, host.run())
    inner:close()
  end)
end)
