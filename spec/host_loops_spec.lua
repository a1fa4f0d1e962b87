-- SPDX-License-Identifier: MIT
local fork_map = require "fork_map"
local hosts = require "support.host_loops"
local process = require "support.process"

local function double(x)
  return 2 * x
end

-- ------------------------------------------------ what holds in all of them

local function waits(w, host)
  it("suspends coroutines that await, beside each other", function()
    local values, n_begun = {}, 0
    for i = 1, 5 do
      host.go(function()
        local f = w.engine:spawn(w.gate.pass, i)
        n_begun = n_begun + 1
        if n_begun == 5 then
          w.gate.open()
        end
        values[i] = f:await()
      end)
    end
    assert.same({}, host.run())
    assert.same({ 1, 2, 3, 4, 5 }, values)
  end)

  it("goes on with the host's other coroutines meanwhile", function()
    local turns, value = 0, nil
    host.go(function()
      value = w.engine:spawn(w.gate.pass, "value"):await()
    end)
    host.go(function()
      for _ = 1, 5 do
        host.sleep(0.002)
        turns = turns + 1
      end
      assert.is_nil(value)
      w.gate.open()
    end)
    assert.same({}, host.run())
    assert.same({ 5, "value" }, { turns, value })
  end)

  it("raises the failure of a child where it is awaited", function()
    local err
    host.go(function()
      err = process.failure(function() w.engine:spawn(error, "boom"):await() end)
    end)
    assert.same({}, host.run())
    assert.same({ "error", "boom" }, { err.kind, err.message })
  end)

  it("ends a wait that takes too long, and the call goes on", function()
    local err, value
    host.go(function()
      local f = w.engine:spawn(w.gate.pass, "value")
      err = process.failure(f.await, f, 0.01)
      assert.is_false(f:wait(0.01))
      w.gate.open()
      value = f:await()
    end)
    assert.same({}, host.run())
    assert.same({ "timeout", "value" }, { err.kind, value })
  end)

  it("does not suspend for a wait of no time", function()
    local order = {}
    host.go(function()
      local f = w.engine:spawn(w.gate.pass)
      order[#order + 1] = "before"
      assert.is_false(f:wait(0))
      order[#order + 1] = "after"
      w.gate.open()
      f:await()
    end)
    host.go(function() order[#order + 1] = " other " end)
    assert.same({}, host.run())
    assert.matches("beforeafter", table.concat(order))
  end)

  it("suspends for fork_map.sleep()", function()
    local order = {}
    host.go(function()
      w.engine:sleep(0.05)
      order[#order + 1] = "slept"
    end)
    host.go(function() order[#order + 1] = "other" end)
    assert.same({}, host.run())
    assert.same({ "other", "slept" }, order)
  end)

  it("has several coroutines wait for the same future", function()
    local sum = 0
    local f = w.engine:spawn(double, 4)
    for _ = 1, 10 do
      host.go(function()
        local value = f:await()
        sum = sum + value
      end)
    end
    assert.same({}, host.run())
    assert.equal(80, sum)
  end)

  it("settles futures of futures, and all that are combined", function()
    local values
    host.go(function()
      local a = w.engine:spawn(double, 1)
      local b = w.engine:spawn(double, a)
      local c = b:map(double)
      local all = w.engine:all { b, c }:await()
      local first = w.engine:race { a, b }:await()
      values = { all[1], all[2], first }
    end)
    assert.same({}, host.run())
    assert.same({ 4, 8, 2 }, values)
  end)

  it("loses no wake-up of many coroutines with many calls", function()
    local n = 0
    for i = 1, 20 do
      host.go(function()
        for k = 1, 5 do
          if k % 2 == 0 then
            host.sleep(0.001)
          end
          assert(w.engine:spawn(double, i * k):await() == 2 * i * k)
          n = n + 1
        end
      end)
    end
    assert.same({}, host.run())
    assert.equal(100, n)
  end)

  -- Where each that waits needs a descriptor, the kernel takes a hundred.
  it("waits for a thousand futures in many coroutines at once #slow", function()
    local width = host.waits_by_descriptor and 80 or 1000
    local n = 0
    for i = 1, width do
      host.go(function()
        for k = i, 1000, width do
          assert(w.engine:spawn(double, k):await() == 2 * k)
          n = n + 1
        end
      end)
    end
    assert.same({}, host.run())
    assert.equal(1000, n)
  end)

  it("runs tasks, which wait as tasks do", function()
    local order = {}
    host.go(function()
      local task = w.engine:task(function()
        order[#order + 1] = "task"
        w.engine:sleep(0.01)
        order[#order + 1] = "slept"
        return w.engine:spawn(double, 21):await()
      end)
      local value = task:await()
      order[#order + 1] = value
    end)
    assert.same({}, host.run())
    assert.same({ "task", "slept", 42 }, order)
  end)
end

local function nurseries(w, host)
  it("joins a nursery of processes and tasks", function()
    local values, sum
    host.go(function()
      sum = w.engine:nursery(function(n)
        for i = 1, 3 do
          n:spawn(double, i)
        end
        n:start(function()
          w.engine:sleep(0.005)
          return 100
        end)
        values = 0
        for f in n:results() do
          values = values + select(2, f:poll())
        end
        return values
      end)
    end)
    assert.same({}, host.run())
    assert.equal(112, sum)
  end)

  it("ends the waits of a nursery's body by its first failure", function()
    local err, inner
    host.go(function()
      err = process.failure(w.engine.nursery, w.engine, function(n)
        local f = n:spawn(w.gate.pass)
        n:spawn(error, "boom")
        inner = process.failure(f.await, f)
        error(inner, 0)
      end)
    end)
    assert.same({}, host.run())
    assert.same({ "boom", "cancelled" }, { err.message, inner.kind })
  end)

  it("ends the waits of a nursery's body by a cancel from another coroutine", function()
    local nursery, kind, n_left
    host.go(function()
      w.engine:nursery(function(n)
        nursery = n
        local f = n:spawn(w.gate.pass)
        kind = process.failure(f.await, f).kind
      end)
      n_left = #process.children()
    end)
    host.go(function()
      host.sleep(0.01)
      nursery:cancel(0)
    end)
    assert.same({}, host.run())
    assert.same({ "cancelled", 0 }, { kind, n_left })
  end)

  it("ends a sleep, and a block's nursery, by a deadline", function()
    local err, slept
    host.go(function()
      err = process.failure(function()
        local _ <close> = w.engine:nursery { deadline = 0.02 }
        slept = process.failure(w.engine.sleep, w.engine, 100)
        error(slept, 0)
      end)
    end)
    assert.same({}, host.run())
    assert.same({ "timeout", "cancelled" }, { err.kind, slept.kind })
  end)

  it("cancels what coroutines wait for, from another one", function()
    local kind
    local f = w.engine:spawn(w.gate.pass)
    host.go(function()
      kind = process.failure(f.await, f).kind
    end)
    host.go(function()
      host.sleep(0.01)
      f:cancel(0)
    end)
    assert.same({}, host.run())
    assert.equal("cancelled", kind)
  end)
end

local function ends(w, host)
  it("ends every wait when the engine is closed", function()
    local kinds = {}
    local f = w.engine:spawn(w.gate.pass):detach()
    host.go(function() kinds[1] = process.failure(f.await, f).kind end)
    host.go(function() kinds[2] = process.failure(f.map(f, double).await, f).kind end)
    host.go(function() kinds[3] = process.failure(w.engine.sleep, w.engine, 100).kind end)
    host.go(function()
      kinds[4] = process.failure(w.engine.nursery, w.engine, function(n)
        n:spawn(w.gate.pass)
      end).kind
    end)
    host.go(function()
      host.sleep(0.01)
      w.engine:close()
    end)
    assert.same({}, host.run())
    assert.same({ "closed", "closed", "closed", "closed" }, kinds)
  end)

  it("refuses to wait when the engine is closed already", function()
    local kind
    local f = w.engine:spawn(w.gate.pass)
    w.engine:close()
    host.go(function() kind = process.failure(w.engine.sleep, w.engine, 1).kind end)
    assert.same({}, host.run())
    assert.equal("closed", kind)
    assert.equal("closed", process.failure(f.await, f).kind)
    assert.has_error(function() w.engine:attach(host.name) end,
      "fork_map: engine:attach: the engine is closed")
  end)

  it("tells the right one of an error in a coroutine that waited", function()
    local value
    host.go(function()
      w.engine:spawn(double, 1):await()
      error("boom", 0)
    end)
    host.go(function()
      value = w.engine:spawn(double, 2):await()
      value = value + w.engine:spawn(double, 3):await()
    end)
    local errors = host.run()
    assert.equal(10, value)
    if host.tells_unhandled then
      assert.same({ "callback: boom" }, w.unhandled)
    else
      assert.same({ "boom" }, errors)
      assert.same({}, w.unhandled)
    end
  end)

  it("goes on after an error of a callback", function()
    local value
    host.go(function()
      local f = w.engine:spawn(double, 1):on_settle(function() error("in it", 0) end)
      value = f:await()
    end)
    assert.same({}, host.run())
    assert.equal(2, value)
    assert.same({ "callback: in it" }, w.unhandled)
  end)

  it("refuses to wait in a callback", function()
    local ok, message
    host.go(function()
      local f = w.engine:spawn(double, 1)
      f:on_settle(function()
        ok, message = pcall(w.engine.sleep, w.engine, 1)
      end)
      f:await()
    end)
    assert.same({}, host.run())
    assert.is_false(ok)
    assert.matches("cannot wait inside a callback", message)
  end)

  it("still waits at top level, which steps the engine", function()
    assert.equal(4, w.engine:spawn(double, 2):await())
    host.go(function()
      assert.equal(6, w.engine:spawn(double, 3):await())
    end)
    assert.same({}, host.run())
    assert.equal(8, w.engine:spawn(double, 4):await())
  end)

  it("wakes a coroutine though somebody else has stepped the engine", function()
    local value
    local f = w.engine:spawn(double, 1)
    host.go(function() value = f:await() end)
    f:wait()
    assert.same({}, host.run())
    assert.equal(2, value)
  end)

  it("can be attached again, also while somebody waits", function()
    local value
    local f = w.engine:spawn(w.gate.pass, 1)
    host.go(function() value = f:await() end)
    host.go(function()
      host.sleep(0.005)
      w.engine:attach(host.name)
      w.gate.open()
      assert.equal(1, f:await())
    end)
    assert.same({}, host.run())
    assert.equal(1, value)
  end)

  it("lets a forked child have engines and waits of its own", function()
    local value
    host.go(function()
      value = w.engine:spawn(function()
        return fork_map.nursery(function(n)
          return n:spawn(double, 5):await()
        end)
      end):await()
    end)
    assert.same({}, host.run())
    assert.equal(10, value)
  end)
end

-- Where the library has the engine stepped.
local function drivers(w, host)
  -- What runs in the loop, or before it, and attaches the engine to it.
  local function begin(fn)
    if host.has_many then
      host.go(function()
        w.engine:attach(host.name)
        fn()
      end)
    else
      fn()
    end
  end

  it("calls callbacks though nobody waits, and has the loop end then", function()
    local value
    begin(function()
      w.engine:spawn(double, 1):on_settle(function(f) value = select(2, f:poll()) end)
    end)
    assert.same({}, host.run())
    assert.equal(2, value)
  end)

  it("has the loop end when what was outstanding has settled outside of it", function()
    local f = w.engine:spawn(double, 1)
    f:await()
    assert.same({}, host.run())
    w.engine:spawn(double, 1):on_settle(function() end)
    local all = w.engine:all { w.engine:spawn(double, 1) }
    all:await()
    assert.same({}, host.run())
  end)

  it("does not keep the loop going when it is idle", function()
    for _ = 1, 3 do
      assert.same({}, host.run())
      host.go(function() w.engine:spawn(double, 1):await() end)
      assert.same({}, host.run())
    end
  end)

  it("goes on with tasks that nobody waits for", function()
    local order = {}
    begin(function()
      w.engine:task(function()
        w.engine:sleep(0.005)
        order[1] = w.engine:spawn(double, 1):await()
      end)
    end)
    assert.same({}, host.run())
    assert.same({ 2 }, order)
  end)

  it("calls callbacks of what callbacks have started", function()
    local n = 0
    local function again()
      n = n + 1
      if n < 5 then
        w.engine:spawn(double, 1):on_settle(again)
      end
    end
    begin(function() w.engine:spawn(double, 1):on_settle(again) end)
    assert.same({}, host.run())
    assert.equal(5, n)
  end)
end

describe("engine:attach()", function()
  for _, name in ipairs { "luv", "cqueues", "copas", "tiny" } do
    hosts.describe(name, function(w, host)
      waits(w, host)
      nurseries(w, host)
      ends(w, host)
      if name ~= "tiny" and not host.loop_is_endless then
        drivers(w, host)
      end
    end)
  end

  describe("misused", function()
    process.guard(before_each, after_each)

    it("refuses what is no adapter", function()
      local engine <close> = fork_map.new()
      for _, adapter in ipairs { 1, true, {}, { wait = 1 }, print } do
        assert.error_matches(function() engine:attach(adapter) end,
          "engine:attach: the name of a library, or a table")
      end
      assert.error_matches(function() engine:attach() end, "the name of a library")
      assert.error_matches(function() engine:attach("libev") end,
        '"libev" is none of "luv", "cqueues", "copas"')
    end)

    it("passes on why a library cannot be loaded", function()
      local engine <close> = fork_map.new()
      local was, loaded = package.searchers, package.loaded.luv
      package.searchers, package.loaded.luv = {}, nil
      local ok, text = pcall(engine.attach, engine, "luv")
      package.searchers, package.loaded.luv = was, loaded
      assert.is_false(ok)
      assert.matches("engine:attach: .*'luv' not found", text)
    end)

    it("refuses engines without a descriptor", function()
      local engine <close> = fork_map.new()
      local ok, text = pcall(engine.attach, engine, hosts.tiny.name)
      assert.equal(hosts.has_descriptors, ok)
      if not ok then
        assert.matches("no descriptor to wait for", text)
      end
    end)
  end)
end)
