-- SPDX-License-Identifier: MIT
local fork_map = require "fork_map"
local futures = require "support.futures"
local host_loops = require "support.host_loops"
local loops = require "fork_map.loop"
local process = require "support.process"
local sys = require "specs_core"
require "fork_map.wait_fd"

local function loop_of(engine)
  engine:timeout() -- makes it
  return engine.loop
end

-- What waits leave: nothing.
local function is_clean(engine)
  local loop = loop_of(engine)
  assert.equal(0, loop.n_watches)
  assert.equal(0, loop.n_live)
  assert.equal(nil, next(loop.live))
end

local PLACES = {
  ["at top level"] = function(_, fn) return fn() end,
  ["in a coroutine"] = function(_, fn) return coroutine.wrap(fn)() end,
  ["in a task"] = function(engine, fn) return engine:task(fn):await() end,
  ["in run()"] = function(engine, fn) return engine:run(fn) end,
  ["in a nursery"] = function(engine, fn) return engine:nursery(function() return fn() end) end,
  ["in a coroutine below a task"] = function(engine, fn)
    return engine:task(function() return coroutine.wrap(fn)() end):await()
  end,
}

describe("loop:wait_fd()", function()
  local check
  process.guard(before_each, function(found) check = found end, 2)

  local engine, loop, reader, writer
  before_each(function()
    engine = futures.new_engine { grace = 0 }
    loop = loop_of(engine)
    reader, writer = sys.pipe()
  end)
  after_each(function()
    engine:close()
    sys.close(reader)
    sys.close(writer)
    check()
  end)

  local function wait(seconds)
    return loop:wait_fd(reader, "r", seconds and sys.now() + seconds)
  end

  for name, place in pairs(PLACES) do
    it("is true when the descriptor is ready " .. name, function()
      sys.write(writer, "x")
      assert.is_true(place(engine, wait))
      assert.is_true(place(engine, function() return loop:wait_fd(writer, "w") end))
      is_clean(engine)
    end)

    it("is true when a child makes it ready " .. name, function()
      local f = engine:spawn(function() sys.write(writer, "x") end)
      assert.is_true(place(engine, wait))
      f:await()
      is_clean(engine)
    end)

    it("is false when its time is over " .. name, function()
      assert.is_false(place(engine, function() return wait(0.01) end))
      assert.is_false(place(engine, function() return wait(0) end))
      is_clean(engine)
    end)

    it("looks once though its time is over before " .. name, function()
      sys.write(writer, "x")
      assert.is_true(place(engine, function() return wait(-1) end))
      is_clean(engine)
    end)
  end

  for name, place in pairs(PLACES) do
    if not name:find("below") then -- no other task runs there
      it("is not disturbed by the collector " .. name, function()
        engine:task(function()
          for _ = 1, 4 do
            collectgarbage()
            engine:yield()
          end
          sys.write(writer, "x")
        end):detach()
        assert.is_true(place(engine, wait))
        is_clean(engine)
      end)
    end
  end

  it("lets other tasks run", function()
    local order = {}
    engine:run(function()
      engine:task(function()
        order[#order + 1] = "other"
        sys.write(writer, "x")
      end)
      wait()
      order[#order + 1] = "waiter"
    end)
    assert.same({ "other", "waiter" }, order)
    is_clean(engine)
  end)

  it("tells of the end as of something to read", function()
    local other_reader, other_writer = sys.pipe()
    sys.close(other_writer)
    assert.is_true(loop:wait_fd(other_reader, "r"))
    sys.close(other_reader)
  end)

  it("waits in many tasks for one descriptor", function()
    local n = 0
    engine:run(function()
      for _ = 1, 20 do
        engine:task(function()
          wait()
          n = n + 1
        end)
      end
      engine:yield()
      sys.write(writer, "x")
    end)
    assert.equal(20, n)
    is_clean(engine)
  end)

  it("is ended by a cancel of its task, and leaves nothing", function()
    local f = engine:task(wait)
    engine:step(0)
    assert.equal(1, loop.n_watches)
    f:cancel()
    assert.equal("cancelled", process.failure(f.await, f).kind)
    is_clean(engine)
    sys.write(writer, "x")
    assert.equal(0, engine:step(0))
  end)

  it("leaves nothing when its task is closed by force, ready or not", function()
    for _, is_ready in ipairs { false, true } do
      local f = engine:task(wait)
      engine:step(0)
      if is_ready then
        sys.write(writer, "x")
      end
      f:cancel(0)
      assert.equal("cancelled", f:status())
      is_clean(engine)
    end
  end)

  it("is ended by the deadline of a nursery", function()
    local err = process.failure(engine.nursery, engine, function() wait() end, { deadline = 0.01 })
    assert.equal("timeout", err.kind)
    is_clean(engine)
  end)

  it("raises when its engine is closed meanwhile", function()
    local f = engine:task(wait)
    engine:step(0)
    engine:close()
    assert.equal("closed", process.failure(f.await, f).kind)
    assert.equal(0, loop.n_watches)
  end)

  it("raises on an engine that is closed", function()
    engine:close()
    assert.equal("closed", process.failure(wait).kind)
  end)

  it("raises in a child of the process whose loop it is", function()
    assert.equal("closed", fork_map(function()
      return select(2, pcall(wait)).kind
    end))
  end)

  it("raises in a callback of the loop", function()
    local said
    local f = engine:task(function() end)
    f:on_settle(function()
      said = select(2, pcall(wait))
    end)
    futures.step_until(engine, function() return said end, "the callback")
    assert.matches("cannot wait inside a callback", said)
    is_clean(engine)
  end)

  it("says what cannot be waited for", function()
    local _, message, name = loop:wait_fd(-1, "r")
    assert.equal("EBADF", name)
    assert.matches("descriptor", message)
    is_clean(engine)
  end)

  it("is true at once for a file", function()
    local file <close> = io.open("/proc/self/status")
    assert.truthy(file)
    for fd, target in pairs(sys.fds()) do
      if target:find("status", 1, true) then
        assert.is_true(loop:wait_fd(fd, "r"))
      end
    end
    is_clean(engine)
  end)

  it("is no settled future to who steps", function()
    engine:task(function()
      wait()
      engine:sleep(10)
    end):detach()
    engine:step(0)
    sys.write(writer, "x")
    local n = 0
    futures.step_until(engine, function()
      n = n + engine:step(0)
      return loop.n_watches == 0
    end, "the end of the wait")
    assert.equal(0, n)
  end)

  it("is interrupted by a hook of the host, and leaves nothing", function()
    sys.interrupt_after(0.02)
    local ok = pcall(wait)
    sys.handle(14, "default")
    assert.is_false(ok)
    is_clean(engine)
    assert.is_false(loops.is_scheduling)
  end)
end)

for _, name in ipairs { "luv", "cqueues", "copas", "tiny" } do
  host_loops.describe(name, function(world, host)
    it("suspends coroutines of the loop in loop:wait_fd()", function()
      local reader, writer = sys.pipe()
      local order = {}
      host.go(function()
        local is_ready = loop_of(world.engine):wait_fd(reader, "r")
        order[#order + 1] = is_ready
      end)
      host.go(function()
        host.sleep(0.01)
        order[#order + 1] = "other"
        sys.write(writer, "x")
      end)
      assert.same({}, host.run())
      assert.same({ "other", true }, order)
      is_clean(world.engine)
      sys.close(reader)
      sys.close(writer)
    end)
  end)
end
