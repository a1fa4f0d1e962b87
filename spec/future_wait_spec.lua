-- SPDX-License-Identifier: MIT
local fork_map = require "fork_map"
local futures = require "support.futures"
local process = require "support.process"
local sys = require "specs_core"

local function give(...)
  return ...
end

-- Where a wait may be, by what the table of docs/api.md says: each calls `fn` there
-- and returns what it returns.
local PLACES = {
  ["at top level"] = function(_, fn)
    return fn()
  end,
  ["in a coroutine at top level"] = function(_, fn)
    return coroutine.wrap(fn)()
  end,
  ["in a task"] = function(engine, fn)
    return engine:task(fn):await()
  end,
  ["in run()"] = function(engine, fn)
    return engine:run(fn)
  end,
  ["in the body of a nursery"] = function(engine, fn)
    return engine:nursery(fn)
  end,
}

-- Places where no task can run.
local BELOW = {
  ["in a coroutine below a task"] = function(engine, fn)
    return engine:task(function() return coroutine.wrap(fn)() end):await()
  end,
  ["in the order of table.sort, below a task"] = function(engine, fn)
    return engine:task(function()
      local results
      table.sort({ 1, 2 }, function(a, b)
        results = results or table.pack(fn())
        return a < b
      end)
      return table.unpack(results, 1, results.n)
    end):await()
  end,
  ["in a __gc metamethod"] = function(_, fn)
    local results
    setmetatable({}, { __gc = function() results = table.pack(pcall(fn)) end })
    collectgarbage()
    assert(results[1], results[2])
    return table.unpack(results, 2, results.n)
  end,
}

describe("await()", function()
  process.guard(before_each, after_each, 4)

  for _, places in ipairs { PLACES, BELOW } do
    for name, place in pairs(places) do
      it("gives the values of a call in a child " .. name, function()
        local engine <close>, log = futures.new_engine()
        local f = engine:spawn(give, 1, nil, 3, nil)
        assert.same({ 1, nil, 3, nil, n = 4 }, table.pack(place(engine, function()
          return f:await()
        end)))
        assert.same({}, log)
      end)

      it("raises the failure " .. name, function()
        local engine <close>, log = futures.new_engine()
        local f = engine:spawn(error, { code = 7 })
        assert.equal(7, place(engine, function()
          return process.failure(f.await, f).value.code
        end))
        assert.same({}, log)
      end)

      it("ends after its time, and the call goes on, " .. name, function()
        local engine <close> = futures.new_engine()
        local gate <close> = futures.gate()
        local f = engine:spawn(gate.wait, "late")
        assert.same({ "timeout", "timeout", false, false }, { place(engine, function()
          return process.failure(f.await, f, 0.01).kind, process.failure(f.await, f, 0).kind,
            f:wait(0.01), f:wait(0)
        end) })
        assert.equal("running", f:status())
        gate.open()
        assert.is_true(f:wait(3600))
        assert.is_true(f:wait(0))
        assert.equal("late", f:await(0))
      end)

      it("gives what has settled, though it is of no use to wait, " .. name, function()
        local engine <close> = futures.new_engine()
        local f, task = engine:spawn(give, 1), engine:task(give, 2)
        task:wait()
        f:wait()
        assert.same({ 1, 2 }, { place(engine, function() return f:await(), task:await() end) })
      end)

      it("waits for a future of another engine " .. name, function()
        local engine <close> = futures.new_engine()
        local other <close> = futures.new_engine()
        local f = other:spawn(give, 1)
        assert.equal(1, place(engine, function() return f:await() end))
      end)
    end
  end

  for name, place in pairs(PLACES) do
    it("waits for a task " .. name, function()
      local engine <close> = futures.new_engine()
      local task = engine:task(function()
        engine:sleep(0.001)
        return engine:spawn(give, 1):await()
      end)
      assert.equal(1, place(engine, function() return task:await() end))
    end)
  end

  for name, place in pairs(BELOW) do
    it("says at once that it would deadlock when only a task could settle it, " .. name, function()
      local engine <close>, log = futures.new_engine()
      local slow = engine:spawn(sys.sleep, 60)
      local task = engine:task(function() return engine:spawn(give, 1):await() end)
      local derived = engine:all { task:map(give), slow }
      local waiting = engine:spawn(give, task)
      local texts = { place(engine, function()
        local first = { pcall(task.await, task) }
        local second = { pcall(derived.wait, derived) }
        local third = { pcall(waiting.await, waiting) }
        return first[2], second[2], third[2]
      end) }
      assert.equal(3, #texts)
      for _, text in ipairs(texts) do
        assert.matches("would deadlock", tostring(text), 1, true)
      end
      assert.equal(1, task:await())
      assert.equal(1, waiting:await())
      assert.same({}, log)
    end)

    it("waits for the first of a process and a task " .. name, function()
      local engine <close> = futures.new_engine()
      local task = engine:task(function() engine:sleep(3600) end)
      local f = engine:race { task, engine:spawn(give, 1) }
      assert.equal(1, place(engine, function() return f:await() end))
      task:cancel(0)
    end)
  end

  it("says that it would deadlock where nothing is left that could settle it", function()
    local engine <close> = futures.new_engine()
    local one
    local two = engine:task(function() return one:await() end)
    one = engine:task(function() return two:await() end)
    for _, f in ipairs { one, two, engine:all { one }, engine:spawn(give, one) } do
      local ok, text = pcall(f.await, f)
      assert.is_false(ok)
      assert.matches("would deadlock", tostring(text), 1, true)
    end
    assert.is_false(one:wait(0.01))
    one:cancel(0)
    assert.equal("cancelled", process.failure(two.await, two).kind)
  end)

  it("may be there in many coroutines and tasks for the same future", function()
    local engine <close> = futures.new_engine()
    local gate <close> = futures.gate()
    local f = engine:spawn(gate.wait, 1)
    local tasks = {}
    for i = 1, 100 do
      tasks[i] = engine:task(function() return f:await() end)
    end
    engine:step(0)
    gate.open()
    for _, task in ipairs(tasks) do
      assert.equal(1, task:await())
    end
  end)

  it("goes on when a callback cancels what is awaited", function()
    local engine <close> = futures.new_engine { grace = 0 }
    local slow = engine:spawn(sys.sleep, 60)
    engine:spawn(give):on_settle(function() slow:cancel() end)
    assert.equal("cancelled", process.failure(slow.await, slow).kind)
  end)

  it("cannot be done by who has closed the engine of what does not settle", function()
    local engine = futures.new_engine()
    engine:close()
    for _, fn in ipairs {
      function() engine:sleep(1) end,
      function() engine:spawn(give) end,
      function() engine:task(give) end,
      function() engine:run(give) end,
      function() engine:with({}):spawn(give) end,
      function() engine(give) end,
    } do
      assert.equal("closed", process.failure(fn).kind)
    end
  end)
end)

describe("an error of a hook, as Ctrl-C sets one,", function()
  process.guard(before_each, after_each, 4)

  -- Call `fn`, which the hook's error leaves.
  local function interrupt(fn)
    sys.interrupt_after(0.1)
    local ok, message = pcall(fn)
    sys.handle(14, "default")
    assert.is_false(ok)
    assert.matches("interrupted!", message)
  end

  it("leaves a wait, and the call goes on", function()
    local engine <close>, log = futures.new_engine()
    local gate <close> = futures.gate()
    local f = engine:spawn(gate.wait, 1)
    interrupt(function() f:await() end)
    assert.equal("running", f:status())
    gate.open()
    assert.equal(1, f:await())
    assert.same({}, log)
  end)

  it("ends the call that a to-be-closed variable holds", function()
    local engine <close> = futures.new_engine()
    local pid
    interrupt(function()
      local f <close> = engine:spawn(sys.sleep, 60)
      pid = f:pid()
      f:await()
    end)
    assert.is_nil(process.state(pid))
  end)

  it("leaves a wait while a task computes, and that and others go on", function()
    local engine <close>, log = futures.new_engine()
    local runs = 0
    local busy = engine:task(function()
      sys.sleep(0.3)
      runs = runs + 1
      engine:sleep(0.001)
      return "busy"
    end)
    local ends = engine:task(function()
      sys.sleep(0.001)
      return "ends"
    end)
    local yields = engine:task(function()
      coroutine.yield()
      return "yields"
    end)
    local f = engine:spawn(give, "call")
    interrupt(function() busy:await() end)
    assert.same({ "busy", "ends", "yields", "call" },
      { busy:await(), ends:await(), yields:await(), f:await() })
    assert.equal(1, runs)
    assert.same({}, log)
  end)

  it("may wait itself instead, while another wait goes on", function()
    local engine <close>, log = futures.new_engine()
    local f = engine:spawn(function() sys.sleep(0.3) return "outer" end)
    local g, inner = engine:spawn(give, "inner"), nil
    sys.interrupt_after(0.1, function() inner = g:await() end)
    local outer = f:await()
    sys.handle(14, "default")
    assert.same({ "outer", "inner" }, { outer, inner })
    assert.same({}, log)
  end)

  it("leaves a wait while a task ends or yields by itself, and nothing of that is lost", function()
    for _, fn in ipairs {
      function() sys.sleep(0.3) return "value" end,
      function() sys.sleep(0.3) coroutine.yield() return "value" end,
      function() sys.sleep(0.3) fork_map.yield() return "value" end,
    } do
      local engine <close>, log = futures.new_engine()
      local task = engine:task(fn)
      interrupt(function() task:await() end)
      assert.equal("value", task:await())
      assert.same({}, log)
    end
  end)
end)

describe("a future of the parent, in a child,", function()
  process.guard(before_each, after_each, 4)

  it("is refused with kind closed where it would have to settle, and never waited for", function()
    local engine <close>, log = futures.new_engine()
    local gate <close> = futures.gate()
    local f = engine:spawn(gate.wait, 1)
    local waiting = engine:spawn(give, f)
    local task = engine:task(give)
    local kinds = table.pack(engine(function()
      local found = {}
      for _, future in ipairs { f, waiting, task } do
        for _, fn in ipairs {
          function() future:await() end,
          function() future:wait(0) end,
          function() future:cancel() end,
          function() future:cancel(0) end,
          function() future:on_settle(give) end,
          function() future:map(give) end,
          function() fork_map.all { future } end,
          function() fork_map.race { future } end,
          function() fork_map.within(1, future) end,
          function() fork_map.spawn(give, future) end,
          function() fork_map.run(function() future:await() end) end,
          function() for _ in fork_map.as_completed { future } do error("no") end end,
          function() engine:step(0) end,
          function() engine:sleep(0) end,
          function() engine:spawn(give) end,
        } do
          local ok, err = pcall(fn)
          found[#found + 1] = not ok and type(err) == "table" and err.kind or tostring(err)
        end
        found[#found + 1] = tostring(future:status() ~= nil and select("#", future:poll()) == 0)
        local _ = { future:pid(), future:usage(), future:output(), future:detach() }
      end
      engine:close()
      return table.unpack(found)
    end))
    assert.equal(48, kinds.n)
    for i = 1, kinds.n do
      assert.equal(i % 16 == 0 and "true" or "closed", kinds[i], "number " .. i)
    end
    gate.open()
    assert.same({ 1, 1, 0 }, { f:await(), waiting:await(), select("#", task:await()) })
    assert.same({}, log)
  end)

  it("that has settled gives its values", function()
    local f = fork_map.spawn(give, 1)
    f:await()
    assert.same({ true, 1, 1, 2 }, { fork_map(function()
      local ok, value = f:poll()
      return ok, value, f:await(), fork_map.spawn(function(x) return x + 1 end, f):await()
    end) })
  end)

  it("is neither reported nor cancelled by the collector there", function()
    local engine <close>, log = futures.new_engine()
    local phone <close> = futures.telephone()
    local gate <close> = futures.gate()
    engine:configure { on_unhandled = function() phone.tell("reported") end }
    local f, failed, task = engine:spawn(gate.wait, 1), engine:spawn(error, "boom", 0),
      engine:task(give)
    failed:wait()
    engine(function()
      f, failed, task = nil, nil, nil
      for _ = 1, 3 do
        collectgarbage()
      end
    end)
    phone.tell("nothing")
    assert.equal("nothing", phone.hear())
    failed:poll()
    gate.open()
    assert.same({ 1, 0 }, { f:await(), select("#", task:await()) })
    assert.same({}, log)
  end)

  it("does not keep a child that was forked in a task from being a host as any", function()
    local engine <close>, log = futures.new_engine()
    assert.same({ 1, 2, 3, 4, 5 }, { engine:run(function()
      return engine(function()
        local n = 0
        fork_map.run(function() n = fork_map(give, 2) end)
        local t = fork_map.task(function() return fork_map.spawn(give, 3):await() end)
        return fork_map(give, 1), n, t:await(), fork_map.map(1, function() return 4 end)[1],
          fork_map.nursery(function(nursery) return nursery:spawn(give, 5):await() end)
      end)
    end) })
    assert.same({}, log)
  end)
end)
