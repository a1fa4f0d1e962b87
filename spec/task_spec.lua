-- SPDX-License-Identifier: MIT
local fork_map = require "fork_map"
local process = require "support.process"
local quiet = require "support.quiet"
local sys = require "specs_core"

-- Each place that code of a host can be in; the verb is called there.
local PLACES = {
  ["at top level"] = function(fn)
    return fn()
  end,
  ["in a coroutine at top level"] = function(fn)
    return coroutine.wrap(fn)()
  end,
  ["in a task"] = function(fn)
    return fork_map.task(fn):await()
  end,
  ["in a coroutine of a task"] = function(fn)
    return fork_map.task(function()
      return coroutine.wrap(fn)()
    end):await()
  end,
  ["in a function that C calls in a task"] = function(fn)
    return fork_map.task(function()
      local result
      table.sort({ 1, 2 }, function(a, b)
        result = result or table.pack(fn())
        return a < b
      end)
      return table.unpack(result, 1, result.n)
    end):await()
  end,
  ["in a coroutine of main of run()"] = function(fn)
    return fork_map.run(function()
      return coroutine.wrap(fn)()
    end)
  end,
}

describe("fork_map.task()", function()
  quiet.guard(before_each, after_each)

  for place, call in pairs(PLACES) do
    describe(place, function()
      it("sleep() lets time pass", function()
        local seconds = process.timed(call, function()
          fork_map.sleep(0.02)
        end)
        assert.is_true(seconds >= 0.02)
      end)

      it("yield() returns", function()
        assert.equal("back", call(function()
          fork_map.yield()
          return "back"
        end))
      end)

      it("within() gives what a process gives", function()
        assert.equal("value", call(function()
          return fork_map.within(60, fork_map.spawn(function() return "value" end)):await()
        end))
      end)

      it("within() fails after its time and cancels", function()
        assert.same({ "timeout", "cancelled" }, call(function()
          local f = fork_map.with { grace = 0 }:spawn(sys.sleep, 60)
          local late = fork_map.within(0.01, f)
        local _, err = pcall(late.await, late)
          f:wait()
          return { err.kind, f:status() }
        end))
      end)

      it("a call waits and gives its values", function()
        assert.equal(3, call(function()
          return (fork_map(function(a, b) return a + b end, 1, 2))
        end))
      end)

      it("a task that is started begins when somebody waits", function()
        local order = {}
        call(function()
          fork_map.task(function() order[#order + 1] = "task" end)
          order[#order + 1] = "starter"
        end)
        fork_map.sleep(0)
        assert.same({ "starter", "task" }, order)
      end)
    end)
  end

  it("refuses to wait in a callback, and starts tasks there", function()
    local refusals, started = {}, nil
    local f = fork_map.spawn(function() end)
    f:on_settle(function()
      for name, wait in pairs {
        sleep = function() fork_map.sleep(0) end,
        yield = fork_map.yield,
        await = function() fork_map.task(function() end):await() end,
        call = function() fork_map(function() end) end,
        run = function() fork_map.run(function() end) end,
        nursery = function() fork_map.nursery(function() end) end,
        step = function() fork_map.engine():step(0) end,
        close = function() fork_map.engine():close() end,
      } do
        refusals[name] = select(2, pcall(wait))
      end
      started = fork_map.task(function() return "begun" end)
    end)
    f:wait()
    while not started do
      fork_map.sleep(0)
    end
    assert.equal("begun", started:await())
    for _, name in ipairs {
      "sleep", "yield", "await", "call", "run", "nursery", "step", "close",
    } do
      assert.matches("inside a callback", tostring(refusals[name]), 1, true)
    end
  end)

  it("says at once that a task cannot be awaited where none can run", function()
    local message = fork_map.task(function()
      local other = fork_map.task(function() return 1 end)
      local _, text = coroutine.wrap(function()
        return pcall(other.await, other)
      end)()
      return text
    end):await()
    assert.matches("would deadlock", message)
  end)

  it("says that nothing is left that could settle what is awaited", function()
    local gate, open = quiet.gate()
    assert.error_matches(function() gate:await() end, "would deadlock")
    local f = fork_map.task(function() gate:await() end)
    assert.error_matches(function() f:await() end, "would deadlock")
    assert.equal("running", f:status())
    open()
    f:await()
  end)

  it("gives all values, nils included", function()
    assert.same({ nil, 2, nil, n = 3 }, table.pack(fork_map.task(function(...)
      return ...
    end, nil, 2, nil):await()))
    assert.equal(0, select("#", fork_map.task(function() end):await()))
  end)

  it("gives what would not cross from a process, as it is", function()
    local fn = function() end
    local value = { fn, io.stdout }
    assert.equal(value, fork_map.task(function(v) return v end, value):await())
  end)

  it("fails with what it raised, a string, a table, nil, in an error of kind error", function()
    for _, raised in ipairs { { "text" }, { { code = 42 } }, { nil }, { false }, { 42 } } do
      local f = fork_map.task(function() error(raised[1], 0) end)
      local err = process.failure(f.await, f)
      assert.equal("error", err.kind)
      assert.equal(raised[1], err.value)
      assert.equal("failed", f:status())
      assert.is_string(err.message)
    end
  end)

  it("tells in the traceback where it was raised", function()
    local function deep_inside()
      error("boom")
    end
    local f = fork_map.task(function()
      fork_map.yield()
      deep_inside()
    end)
    local err = process.failure(f.await, f)
    assert.matches("task_spec.lua:%d+: boom", err.message)
    assert.matches("deep_inside", err.traceback, 1, true)
  end)

  it("passes an error of the engine on as the same object", function()
    local inner
    local f = fork_map.task(function()
      local ok
      ok, inner = pcall(fork_map, function() os.exit(3) end)
      assert(not ok)
      error(inner)
    end)
    local err = process.failure(f.await, f)
    assert.equal("exit", err.kind)
    assert.equal(inner, err)
  end)

  it("fails with an error even if the text of what it raised cannot be had", function()
    local f = fork_map.task(function()
      error(setmetatable({}, { __tostring = function() error("no text") end }))
    end)
    assert.equal("error", process.failure(f.await, f).kind)
  end)

  it("fails with an error when its stack overflows", function()
    local function recurse() return 1 + recurse() end
    local f = fork_map.task(recurse)
    assert.matches("stack overflow", process.failure(f.await, f).message)
  end)

  it("lets others run while it is in a call", function()
    local order = {}
    fork_map.run(function()
      local reader, writer = sys.pipe()
      fork_map.task(function()
        order[#order + 1] = "other"
        fork_map.yield()
        order[#order + 1] = "opens"
        sys.write(writer, "x")
      end)
      fork_map(function() sys.read(reader, 1) end)
      order[#order + 1] = "called"
      sys.close(reader)
      sys.close(writer)
    end)
    assert.same({ "other", "opens", "called" }, order)
  end)

  it("lets others run when it yields by itself, and gets nothing from that", function()
    local order, got = {}, nil
    local a = fork_map.task(function()
      order[#order + 1] = "a"
      got = table.pack(coroutine.yield("ignored", 1))
      order[#order + 1] = "a again"
    end)
    local b = fork_map.task(function()
      order[#order + 1] = "b"
    end)
    a:await()
    b:await()
    assert.same({ "a", "b", "a again" }, order)
    assert.equal(0, got.n)
  end)

  it("leaves generators in a task alone", function()
    local values = fork_map.task(function()
      local list = {}
      for i in coroutine.wrap(function()
        for i = 1, 3 do
          fork_map.sleep(0.001)
          coroutine.yield(i)
        end
      end) do
        list[#list + 1] = i
      end
      return list
    end):await()
    assert.same({ 1, 2, 3 }, values)
  end)

  it("is queued, runs, and is done", function()
    local gate, open = quiet.gate()
    local f = fork_map.task(function() gate:wait() end)
    assert.equal("queued", f:status())
    assert.is_nil(f:poll())
    fork_map.yield()
    assert.equal("running", f:status())
    open()
    assert.is_true(f:wait())
    assert.equal("done", f:status())
    assert.is_true(f:poll())
  end)

  it("refuses what is no function", function()
    assert.error_matches(function() fork_map.task(42) end,
      "fork_map.task: a function is expected, not a number")
    assert.error_matches(function() fork_map.sleep(-1) end, "fork_map.sleep: seconds")
    assert.error_matches(function() fork_map.sleep(0 / 0) end, "fork_map.sleep: seconds")
    assert.error_matches(function() fork_map.within("1", 2) end, "fork_map.within: seconds")
  end)

  it("wakes tasks in the order of their times", function()
    local order = {}
    fork_map.run(function()
      for i, seconds in ipairs { 0.03, 0.01, 0.02, 0.01 } do
        fork_map.task(function()
          fork_map.sleep(seconds)
          order[#order + 1] = i
        end)
      end
    end)
    assert.same({ 2, 4, 3, 1 }, order)
  end)

  it("runs ten thousand of them", function()
    local sum, list = 0, {}
    for i = 1, 10000 do
      list[i] = fork_map.task(function()
        fork_map.yield()
        fork_map.sleep(0)
        sum = sum + i
        return i
      end)
    end
    local values = fork_map.all(list):await()
    assert.equal(50005000, sum)
    assert.equal(10000, values[10000])
  end)

  it("is not held up by a task that yields for ever", function()
    local stop = false
    local greedy = { fork_map.task(function()
      while not stop do fork_map.yield() end
    end), fork_map.task(function()
      while not stop do coroutine.yield() end
    end), fork_map.task(function()
      while not stop do fork_map.sleep(0) end
    end) }
    fork_map.task(fork_map.sleep, 0.01):await()
    assert.equal(5, fork_map.spawn(function() return 5 end):await())
    assert.equal(6, fork_map(function() return 6 end))
    fork_map.engine():step(0)
    fork_map.engine():step(60)
    assert.is_false(fork_map.task(function()
      return quiet.gate():wait(0.01)
    end):await())
    stop = true
    fork_map.all(greedy):await()
    collectgarbage()
  end)

  it("goes on though nobody has its future, and is told of once when it fails", function()
    quiet.watch(function(engine, seen)
      local steps = 0
      engine:task(function()
        engine:yield()
        collectgarbage()
        engine:sleep(0.001)
        steps = steps + 1
        error("nobody looks", 0)
      end)
      collectgarbage()
      engine:sleep(0.05)
      while steps == 0 do engine:sleep(0.01) end
      collectgarbage()
      engine:sleep(0)
      assert.equal(1, #seen)
      assert.equal("unseen", seen[1].why)
      assert.equal("nobody looks", seen[1].err.value)
    end)
  end)

  it("is not told of when somebody looked at its failure", function()
    quiet.watch(function(engine, seen)
      local f = engine:task(error, "boom")
      assert.is_false(pcall(f.await, f))
      f = engine:task(error, "boom")
      f:wait()
      f:poll()
      f = nil -- luacheck: ignore
      collectgarbage()
      engine:step(0)
      assert.same({}, seen)
    end)
  end)

  it("may await futures of another engine", function()
    local one <close> = fork_map.new {}
    do
      local two <close> = fork_map.new {}
      assert.equal(7, one:task(function()
        return two:spawn(function() return 7 end):await()
          + two:task(function() two:sleep(0.001) return 0 end):await()
      end):await())
      quiet.check(two)
    end
    quiet.check(one)
  end)
end)
