-- SPDX-License-Identifier: MIT
local fork_map = require "fork_map"
local process = require "support.process"
local quiet = require "support.quiet"
local sys = require "specs_core"

describe("cancelling a task", function()
  quiet.guard(before_each, after_each)

  -- A task that has come to its wait, and the list of what happened to it.
  local function waiting(fn)
    local events = {}
    local f = fork_map.task(fn, events)
    fork_map.yield()
    return f, events
  end

  -- What it awaits has settled and it is about to be resumed.
  local function cancel_ready(f, open)
    fork_map.task(function()
      open()
      fork_map.yield()
      assert(f:cancel())
    end):await()
  end

  local function outcome(f)
    f:wait()
    local ok, err = f:poll()
    return f:status(), not ok and err.kind or nil
  end

  it("that has not begun lets it never begin", function()
    local ran = false
    local f = fork_map.task(function() ran = true end)
    assert.is_true(f:cancel())
    assert.is_false(f:cancel())
    assert.same({ "cancelled", "cancelled" }, { outcome(f) })
    fork_map.yield()
    assert.is_false(ran)
  end)

  it("that waits raises an error of kind cancelled in its wait", function()
    for name, wait in pairs {
      sleep = function() fork_map.sleep(60) end,
      await = function() fork_map.spawn(sys.sleep, 60):await() end,
      wait = function() (quiet.gate()):wait() end,
      call = function() fork_map(sys.sleep, 60) end,
      task = function() fork_map.task(fork_map.sleep, 0.01):await() end,
    } do
      local f, events = waiting(function(events)
        local ok, err = pcall(wait)
        events[1], events[2] = ok, err.kind
        error(err)
      end)
      assert.is_true(f:cancel(), name)
      assert.same({ "cancelled", "cancelled" }, { outcome(f) }, name)
      assert.same({ false, "cancelled" }, events, name)
      collectgarbage()
      while #process.children() > 0 do fork_map.sleep(0.001) end
      fork_map.sleep(0.02)
    end
  end)

  it("that can go on raises at its next wait", function()
    local gate, open = quiet.gate()
    local f, events = waiting(function(events)
      gate:wait()
      events[1] = "went on"
      fork_map.sleep(60)
    end)
    cancel_ready(f, open)
    assert.equal("cancelled", (outcome(f)))
    assert.same({ "went on" }, events)
  end)

  it("that ends without waiting again is done", function()
    local gate, open = quiet.gate()
    local f = waiting(function()
      gate:wait()
      return "whole"
    end)
    cancel_ready(f, open)
    assert.equal("whole", f:await())
  end)

  it("that catches the error and returns is done", function()
    local f = waiting(function()
      pcall(fork_map.sleep, 60)
      return "tidied up"
    end)
    f:cancel()
    assert.equal("tidied up", f:await())
    assert.equal("done", f:status())
  end)

  it("that raises something else on its way out fails with that", function()
    local f = waiting(function()
      pcall(fork_map.sleep, 60)
      error("out", 0)
    end)
    f:cancel()
    assert.equal("out", process.failure(f.await, f).value)
    assert.equal("failed", f:status())
  end)

  it("that catches the error raises again in every wait", function()
    local f, events = waiting(function(events)
      for i, wait in ipairs {
        fork_map.sleep, fork_map.yield, function() fork_map(function() end) end,
        function() coroutine.wrap(fork_map.sleep)(60) end,
        function() fork_map.nursery(function() fork_map.yield() end) end,
      } do
        local _, err = pcall(wait, 60)
        events[i] = err and err.kind
      end
      return "in the end"
    end)
    f:cancel()
    assert.equal("in the end", f:await())
    assert.same({ "cancelled", "cancelled", "cancelled", "cancelled", "cancelled" }, events)
  end)

  it("that ignores it is closed after the grace, and does not hold up others", function()
    for _, ignore in ipairs {
      function() while true do pcall(fork_map.sleep, 60) end end,
      function() while true do pcall(fork_map.yield) end end,
      function() while true do coroutine.yield() end end,
      function() while true do pcall(fork_map, function() end) end end,
    } do
      local f, events = waiting(function(events)
        local _ <close> = setmetatable({}, { __close = function()
          events[#events + 1] = "closed"
        end })
        ignore()
      end)
      assert.is_true(f:cancel(0.02))
      assert.is_false(f:cancel(0.02))
      local ran = fork_map.task(function() fork_map.yield() return "ran" end)
      assert.equal("ran", ran:await())
      assert.equal("cancelled", (outcome(f)))
      assert.same({ "closed" }, events)
    end
    while #process.children() > 0 do fork_map.sleep(0.001) end
  end)

  it("that ignores it in a coroutine of its own is closed when it is back", function()
    local gate, open = quiet.gate()
    local f
    local was_told, events = false, {}
    f = waiting(function()
      local _ <close> = setmetatable({}, { __close = function()
        events[1] = "closed"
      end })
      gate:wait()
      coroutine.wrap(function()
        while f.cell.stop ~= "forced" do
          local ok, err = pcall(fork_map.sleep, 0.001)
          was_told = was_told or not ok and err.kind == "cancelled"
        end
      end)()
      coroutine.yield()
      events[2] = "went on"
    end)
    quiet.after(0.01, function() f:cancel(0.01) end)
    open()
    assert.equal("cancelled", (outcome(f)))
    assert.same({ "closed" }, events)
    assert.is_true(was_told)
  end)

  it("with a shorter grace than before counts, a longer one does not", function()
    local f = waiting(function() while true do pcall(fork_map.sleep, 60) end end)
    assert.is_true(f:cancel(60))
    assert.is_false(f:cancel(0.01))
    assert.is_false(f:cancel(60))
    assert.equal("cancelled", (outcome(f)))
  end)

  it("by force closes it where it stands, at once", function()
    local f, events = waiting(function(events)
      local _ <close> = setmetatable({}, { __close = function(_, err)
        events[1] = tostring(err)
      end })
      pcall(fork_map.sleep, 60)
      events[2] = "never"
    end)
    assert.is_true(f:cancel(0))
    assert.same({ "cancelled", "cancelled" }, { outcome(f) })
    assert.same({ "nil" }, events)
    quiet.check()
  end)

  it("by force lets go of what it awaited", function()
    local f = waiting(function()
      fork_map.with { grace = 0 }:spawn(sys.sleep, 60):await(60)
    end)
    f:cancel(0)
    collectgarbage()
    process.eventually(function()
      fork_map.engine():step(0)
      return #process.children() == 0
    end, "the process is dropped")
    quiet.check()
  end)

  it("by force in a callback closes it from the loop", function()
    local f, events = waiting(function(events)
      local _ <close> = setmetatable({}, { __close = function()
        events[1] = fork_map(function() return "in a child" end)
      end })
      pcall(fork_map.sleep, 60)
      events[2] = "never"
    end)
    local done = fork_map.task(function() end)
    done:on_settle(function() f:cancel(0) end)
    assert.equal("cancelled", (outcome(f)))
    assert.same({ "in a child" }, events)
  end)

  it("by itself raises in its next wait", function()
    for _, grace in ipairs { false, 0, 0.01 } do
      local f
      f = fork_map.task(function()
        fork_map.yield()
        assert(f:cancel(grace or nil))
        fork_map.sleep(60)
      end)
      assert.equal("cancelled", (outcome(f)))
      f = fork_map.task(function()
        fork_map.yield()
        f:cancel(grace or nil)
        return "ended"
      end)
      assert.equal("ended", f:await())
    end
  end)

  it("by another task, by force, closes what waits in turn", function()
    local f, events = waiting(function(events)
      local _ <close> = setmetatable({}, { __close = function()
        events[1] = fork_map(function() return "in a child" end)
      end })
      fork_map.sleep(60)
    end)
    local other = fork_map.task(function()
      f:cancel(0)
      fork_map.sleep(0.001)
      return f:status()
    end)
    assert.equal("cancelled", other:await())
    assert.same({ "in a child" }, events)
  end)

  it("closes variables that wait or raise, each in its turn", function()
    local f, events = waiting(function(events)
      local function note(name, fn)
        return setmetatable({}, { __close = function()
          events[#events + 1] = name
          fn()
        end })
      end
      local _ <close> = note("sleeps", function() pcall(fork_map.sleep, 0.001) end)
      local _ <close> = note("raises", function() error("in close", 0) end)
      local _ <close> = note("yields", function() pcall(fork_map.yield) end)
      local _ <close> = note("does nothing", function() end)
      fork_map.sleep(60)
    end)
    f:cancel(0)
    assert.equal("in close", process.failure(f.await, f).value)
    assert.same({ "does nothing", "yields", "raises", "sleeps" }, events)
  end)

  it("waits for a process in a variable that is to be closed", function()
    local f, events = waiting(function(events)
      local child <close> = fork_map.with { grace = 0 }:spawn(sys.sleep, 60)
      events.child = child
      fork_map.sleep(60)
    end)
    f:cancel()
    assert.equal("cancelled", (outcome(f)))
    assert.equal("cancelled", events.child:status())
    assert.same({}, process.children())
  end)

  it("waits for the end of a call that it was in, however it ends", function()
    local f = waiting(function()
      fork_map.with { grace = 60 }(function()
        fork_map.cancelled()
        while true do sys.sleep(1) end
      end)
    end)
    process.eventually(function()
      fork_map.engine():step(0)
      return #process.children() == 1
    end, "the child runs")
    f:cancel(0.05)
    assert.equal("cancelled", (outcome(f)))
    assert.same({}, process.children())
    quiet.check()
  end)

  it("has no effect once it has settled", function()
    local f = fork_map.task(function() return 1 end)
    f:await()
    assert.is_false(f:cancel())
    assert.is_false(f:cancel(0))
    assert.equal(1, f:await())
  end)
end)
