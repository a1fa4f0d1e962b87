-- SPDX-License-Identifier: MIT
-- What futures, tasks and nurseries once did wrong, mostly found by
-- spec/model_spec.lua; one test for each.

local async = require "fork_map.async"
local fork_map = require "fork_map"
local process = require "support.process"
local sys = require "specs_core"

local function new_engine()
  local engine = fork_map.new { max_children = 2, grace = 0.1 }
  return engine, async.get_loop(engine)
end

-- Step until `condition` holds, with a collection before each step.
local function step_until(engine, condition, what)
  process.eventually(function()
    collectgarbage()
    engine:step(0.01)
    return condition()
  end, what)
end

describe("futures that once went wrong", function()
  process.guard(before_each, after_each, 2)

  it("close an engine that has a task which has not begun", function()
    local engine <close> = new_engine()
    local task = engine:task(function() end)
    engine:close()
    assert.equal("closed", select(2, task:poll()).kind)
  end)

  it("leave no timer of a task that is forced to end in its sleep", function()
    local engine <close>, loop = new_engine()
    local task = engine:task(function() engine:sleep(1000) end)
    engine:step(0)
    assert.is_true(task:cancel(0))
    engine:step(0)
    assert.is_nil(loop.timers:next())
  end)

  it("cancel a call that only a task awaited which was forced to end", function()
    local engine <close>, loop = new_engine()
    local task = engine:task(function()
      engine:spawn(sys.sleep, 100):await()
    end)
    engine:step(0)
    task:cancel(0)
    step_until(engine, function() return loop.n_live == 0 end, "the call ended")
    assert.equal(0, loop.n_jobs)
  end)

  it("keep a future that has no name while it is waited for", function()
    local engine <close> = new_engine()
    local reader, writer = sys.pipe()
    local heard, said = sys.pipe()
    engine:task(function()
      for _ = 1, 3 do
        collectgarbage()
        engine:yield()
      end
      sys.write(writer, "x")
    end)
    assert.is_true(engine:spawn(function()
      sys.write(said, sys.read(reader))
    end):wait())
    sys.close(said)
    assert.equal("x", sys.read(heard)) -- and not the end, as of one that was cancelled
    for _, fd in ipairs { reader, writer, heard } do
      sys.close(fd)
    end
  end)

  it("leave a future alone whose race was dropped", function()
    local engine <close>, loop = new_engine()
    local reader, writer = sys.pipe()
    local f = engine:spawn(sys.read, reader)
    for _, derived in ipairs { "race", "any", "all" } do
      engine[derived](engine, { f })
    end
    engine:within(1000, f)
    f:map(print)
    step_until(engine, function() return loop.n_live == 1 end, "what was derived is gone")
    assert.is_nil(loop.timers:next())
    sys.write(writer, "x")
    assert.equal("x", f:await())
    sys.close(reader)
    sys.close(writer)
  end)

  it("cancel what nobody has but a race that is dropped", function()
    local engine <close>, loop = new_engine()
    engine:race { engine:spawn(sys.sleep, 100), engine:spawn(sys.sleep, 100) }
    step_until(engine, function() return loop.n_live == 0 end, "the calls ended")
  end)

  it("wait in what a task closes when a turn forces several to end", function()
    local engine <close>, loop = new_engine()
    for _ = 1, 3 do
      engine:nursery():start(function()
        local _ <close> = engine:spawn(sys.sleep, 100)
        engine:sleep(1000)
      end)
    end
    engine:step(0)
    step_until(engine, function() return loop.n_live == 0 end, "the tasks ended")
  end)

  it("let waits go on after a nursery that nobody has left was collected", function()
    local engine <close>, loop = new_engine()
    engine:nursery({ deadline = 1000 }):spawn(sys.sleep, 100)
    step_until(engine, function() return loop.n_live == 0 end, "the call ended")
    assert.equal(1, engine:spawn(function() return 1 end):await())
    assert.is_nil(loop.timers:next())
  end)

  it("force a task to end that was running when it was to be forced", function()
    local engine <close>, loop = new_engine()
    local task
    task = engine:task(function()
      task:cancel(0)
      while true do
        pcall(engine.sleep, engine, 1000)
        coroutine.yield()
      end
    end)
    step_until(engine, function() return loop.n_live == 0 end, "the task ended")
    assert.equal("cancelled", task:status())
  end)

  it("keep nothing of waits that are over, while others go on", function()
    local engine <close> = new_engine()
    local reader, writer = sys.pipe()
    local f = engine:spawn(sys.read, reader)
    -- Two that never let go at the same time.
    local function wait_often(seconds)
      for _ = 1, 100 do
        f:wait(seconds)
      end
    end
    local tasks = { engine:task(wait_often, 0.001), engine:task(wait_often, 0.0013) }
    for _, task in ipairs(tasks) do
      task:await()
    end
    local last
    for _ = 1, 50 do
      last = engine:race { f }
      collectgarbage()
      engine:step(0)
    end
    assert.is_true(f.cell.waiters.n < 10)
    sys.write(writer, "x")
    assert.equal("x", last:await())
    sys.close(reader)
    sys.close(writer)
  end)

  it("keep few timers of waits that are over", function()
    local engine <close>, loop = new_engine()
    local task = engine:task(function()
      for _ = 1, 10000 do
        local f = engine:task(function() end)
        f:await(1000)
      end
    end)
    task:await()
    assert.is_true(loop.timers.n < 100)
  end)

  it("let go of a future that as_completed() was given twice", function()
    local engine <close>, loop = new_engine()
    local function leave_early()
      local f = engine:spawn(sys.sleep, 100)
      engine:as_completed { f, f, engine:task(function() end) }()
    end
    leave_early()
    step_until(engine, function() return loop.n_live == 0 end, "the call ended")
  end)

  it("wake no host for a timer that was stopped #not_portable", function()
    local engine <close>, loop = new_engine()
    local f = engine:spawn(sys.sleep, 100)
    assert.is_number(engine:pollfd())
    local late = engine:within(1000, f)
    assert.is_number(loop.alarm)
    late:cancel()
    assert.is_nil(loop.alarm)
  end)

  it("end what a task has in a nursery before the task that is forced to end", function()
    local engine <close>, loop = new_engine()
    local task = engine:task(function()
      engine:nursery(function(n)
        n:spawn(sys.sleep, 100)
        engine:sleep(1000)
      end)
    end)
    engine:step(0)
    task:cancel(0)
    assert.equal(0, loop.n_live)
  end)
end)
