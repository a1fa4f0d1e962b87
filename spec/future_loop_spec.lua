-- SPDX-License-Identifier: MIT
local async = require "fork_map.async"
local cells = require "fork_map.cell"
local core = require "fork_map.core"
local fork_map = require "fork_map"
local futures = require "support.futures"
local process = require "support.process"
local project = require "support.project"
local sys = require "specs_core"

local function give(...)
  return ...
end

-- Step as a host does that polls: only when the descriptor is readable, where there
-- is one.
local function run_host(engine, condition, what)
  process.eventually(function()
    local fd = engine:pollfd()
    if not fd then
      engine:step(math.min(engine:timeout() or 0, 0.01))
    elseif sys.is_readable(fd, 0.01) then
      engine:step(0)
    end
    return condition()
  end, what)
end

-- Nothing is left to do: the descriptor says so, and no time either.
local function assert_idle(engine)
  for _ = 1, 3 do
    assert.equal(0, engine:step(0))
  end
  local fd = engine:pollfd()
  assert.is_false(fd ~= nil and sys.is_readable(fd, 0.05))
  assert.is_nil(engine:timeout())
end

describe("engine:step(), pollfd() and timeout()", function()
  process.guard(before_each, after_each, 4)

  it("of an idle engine: nothing is readable, and no time comes", function()
    local engine <close> = fork_map.new()
    assert_idle(engine)
    engine:spawn(give):await()
    assert_idle(engine)
    assert.equal(engine:pollfd(), engine:pollfd())
  end)

  it("tell of a call that has settled, and of nothing while it runs #not_portable", function()
    local engine <close> = fork_map.new()
    local gate <close> = futures.gate()
    local f = engine:spawn(gate.wait, 1)
    assert.equal(0, engine:step(0))
    assert.is_false(sys.is_readable(engine:pollfd(), 0.05))
    gate.open()
    assert.is_true(sys.is_readable(engine:pollfd(), 30))
    run_host(engine, function() return f:poll() end, "the call")
    assert_idle(engine)
  end)

  it("count what has settled, also what settled by that", function()
    local engine <close> = fork_map.new()
    local f = engine:all { engine:spawn(give, 1):map(give), engine:spawn(give, 2) }
    local n = 0
    process.eventually(function()
      n = n + engine:step(0.01)
      return f:poll()
    end, "the calls")
    assert.equal(4, n)
    assert_idle(engine)
  end)

  it("wait at most as long as they are told, also for callbacks and timers", function()
    local engine <close> = fork_map.new()
    local f = engine:spawn(sys.sleep, 60)
    assert.equal(0, engine:step(0.01))
    assert.equal(0, engine:step())
    local late = engine:within(0.02, f)
    assert.is_true(engine:timeout() <= 0.02)
    assert.equal(1, engine:step(3600))
    assert.equal("failed", late:status())
    f:cancel(0)
    local n = 0
    f:on_settle(function() n = n + 1 end)
    futures.step_until(engine, function() return n == 1 end, "the callback")
    late:poll()
    assert_idle(engine)
  end)

  it("step takes any time there is, and does not wait for nothing", function()
    local engine <close> = fork_map.new()
    local took = process.timed(function()
      assert.equal(0, engine:step(math.huge))
      assert.equal(0, engine:step(1e300))
    end)
    assert.is_true(took < 30)
    local f = engine:spawn(give, 1)
    local n = 0
    repeat
      n = n + engine:step(math.huge)
    until n == 1
    assert.equal(1, f:await())
  end)

  it("tell of tasks that can go on, one after the other #not_portable", function()
    local engine <close> = fork_map.new()
    assert.is_false(sys.is_readable(engine:pollfd(), 0))
    local steps = 0
    local task = engine:task(function()
      for _ = 1, 5 do
        steps = steps + 1
        engine:yield()
      end
    end)
    assert.is_true(sys.is_readable(engine:pollfd(), 30))
    assert.equal(0, engine:timeout())
    run_host(engine, function() return task:status() == "done" end, "the task")
    assert.equal(5, steps)
    assert_idle(engine)
  end)

  it("tell of times: sleeping tasks, within(), a timeout of a call", function()
    local engine <close> = fork_map.new()
    local task = engine:task(function() engine:sleep(0.02) end)
    local slow = engine:with { timeout = 0.02, grace = 0 }:spawn(sys.sleep, 60)
    local late = engine:within(0.02, engine:spawn(sys.sleep, 60))
    engine:step(0)
    assert.is_true(engine:timeout() <= 0.02)
    run_host(engine, function()
      return task:poll() and slow:status() == "failed" and late:status() == "failed"
    end, "all of them")
    assert.equal("timeout", select(2, slow:poll()).kind)
    assert.equal("timeout", select(2, late:poll()).kind)
  end)

  it("tell of handles that were dropped #not_portable", function()
    local engine <close> = fork_map.new()
    assert.is_false(sys.is_readable(engine:pollfd(), 0))
    local gate <close> = futures.gate()
    local kept = engine:spawn(gate.wait)
    local pid = engine:spawn(sys.sleep, 60):pid()
    kept:map(give)
    engine:step(0)
    assert.is_false(sys.is_readable(engine:pollfd(), 0.05))
    collectgarbage()
    collectgarbage()
    assert.is_true(sys.is_readable(engine:pollfd(), 30))
    run_host(engine, function() return process.state(pid) == nil end, "the end of the call")
    gate.open()
    run_host(engine, function() return kept:poll() end, "the end of the other")
    assert_idle(engine)
  end)

  it("tell of callbacks, and of those registered in callbacks #not_portable", function()
    local engine <close> = fork_map.new()
    local f = engine:spawn(give)
    f:await()
    assert_idle(engine)
    local n = 0
    local function again()
      n = n + 1
      if n < 5 then
        f:on_settle(again)
      end
    end
    f:on_settle(again)
    assert.is_true(sys.is_readable(engine:pollfd(), 30))
    assert.equal(0, engine:timeout())
    run_host(engine, function() return n == 5 end, "the callbacks")
    assert_idle(engine)
  end)

  it("tell of calls in the queue, whichever way their turn comes", function()
    local engine <close> = fork_map.new { max_children = 1 }
    local list, n = {}, 0
    for i = 1, 10 do
      list[i] = engine:spawn(give, i):on_settle(function() n = n + 1 end)
    end
    list[5]:cancel()
    run_host(engine, function() return n == 10 end, "the calls")
    assert.equal("cancelled", list[5]:status())
    assert_idle(engine)
  end)

  it("tell of what a wait for another engine has left to do", function()
    local engine <close> = fork_map.new()
    local other <close> = fork_map.new()
    local n = 0
    engine:pollfd()
    local f = engine:spawn(give)
    f:on_settle(function()
      n = n + 1
      f:on_settle(function() n = n + 1 end)
    end)
    other:spawn(sys.sleep, 0.02):await()
    run_host(engine, function() return n == 2 end, "the callbacks")
    assert_idle(engine)
    assert_idle(other)
  end)

  it("tell of what is left after a hook has raised out of a step", function()
    local engine <close> = fork_map.new()
    local task = engine:task(function()
      sys.sleep(0.3)
      engine:yield()
      return engine:spawn(give, 1):await()
    end)
    engine:pollfd()
    sys.interrupt_after(0.1)
    local ok = pcall(engine.step, engine, 0)
    sys.handle(14, "default")
    assert.is_false(ok)
    run_host(engine, function() return task:poll() end, "the task")
    assert.equal(1, task:await())
    assert_idle(engine)
  end)
end)

describe("future:pollfd()", function()
  process.guard(before_each, after_each, 4)

  it("is readable when its engine has work, and from its end on #not_portable", function()
    local engine <close> = fork_map.new()
    do
      local gate <close> = futures.gate()
      local f = engine:spawn(gate.wait, 1)
      local fd = f:pollfd()
      assert.equal(fd, f:pollfd())
      assert.equal("r", f:events())
      assert.is_false(sys.is_readable(fd, 0.05))
      gate.open()
      process.eventually(function()
        return sys.is_readable(fd, 1) and f:wait(0)
      end, "the call")
      for _ = 1, 3 do
        engine:step(0)
        assert.is_true(sys.is_readable(fd, 0))
        assert.equal(0, f:timeout())
      end
      assert.not_equal(fd, engine:pollfd())
      assert.is_false(sys.is_readable(engine:pollfd(), 0.05))
      local settled = engine:spawn(give)
      settled:await()
      assert.is_true(sys.is_readable(settled:pollfd(), 0))
    end
    collectgarbage()
    collectgarbage()
  end)

  it("of many is given back with them", function()
    local engine <close> = fork_map.new { max_children = 2 }
    engine:spawn(give):await()
    local before = 0
    for _ in pairs(sys.fds()) do before = before + 1 end
    for i = 1, 100 do
      local f = engine:spawn(give, i)
      f:pollfd()
      assert.equal(i, f:await())
    end
    collectgarbage()
    collectgarbage()
    local after = 0
    for _ in pairs(sys.fds()) do after = after + 1 end
    assert.is_true(after <= before + 10)
  end)

  it("is nil when the engine is closed", function()
    local engine = fork_map.new()
    local f = engine:spawn(give)
    f:await()
    engine:close()
    assert.is_nil(f:pollfd())
    assert.is_nil(engine:pollfd())
    assert.equal(0, engine:step(0))
    assert.equal(0, f:timeout())
  end)
end)

-- An engine with a future in every state.
local function fill(engine, gate)
  local settled = engine:spawn(give, "settled")
  settled:await()
  local list = {
    settled = settled,
    unread = engine:spawn(give, "unread"),
    running = engine:spawn(gate.wait),
    queued = engine:spawn(sys.sleep, 60),
    sleeping = engine:task(function() engine:sleep(3600) end),
  }
  list.waiting = engine:spawn(give, list.running)
  list.mapped = list.running:map(give)
  list.all = engine:all { list.running, list.sleeping }
  list.within = engine:within(3600, list.running)
  list.awaiting = engine:task(function() return list.running:await() end)
  engine:step(0)
  list.fresh = engine:task(give)
  return list
end

describe("engine:close()", function()
  process.guard(before_each, after_each, 4)

  it("settles futures in every state with kind closed, and calls their callbacks", function()
    local before = sys.fds()
    local gate <close> = futures.gate()
    local engine, log = futures.new_engine { max_children = 2, grace = 0 }
    local list = fill(engine, gate)
    local called = {}
    for name, f in pairs(list) do
      f:on_settle(function(g)
        called[#called + 1] = name
        assert(g == f and g:status() ~= "running")
      end)
    end
    engine:close()
    engine:close()
    table.sort(called)
    assert.same({ "all", "awaiting", "fresh", "mapped", "queued", "running", "settled", "sleeping",
      "unread", "waiting", "within" }, called)
    assert.equal("settled", list.settled:await())
    for name, f in pairs(list) do
      local ok, err = f:poll()
      if not ok then
        assert.same({ name, "closed" }, { name, err.kind })
      else
        assert.is_true(name == "settled" or name == "unread")
      end
      assert.is_false(f:cancel())
    end
    assert.same({}, process.children())
    gate.open()
    list = nil -- luacheck: ignore 311
    collectgarbage()
    collectgarbage()
    assert.same({}, log)
    assert.same(before, sys.fds())
  end)

  it("ends a task's wait for a future of the engine, also from another engine's task", function()
    local other <close> = futures.new_engine()
    local engine = futures.new_engine { grace = 0 }
    local slow = engine:spawn(sys.sleep, 60)
    local task = other:task(function() return process.failure(slow.await, slow).kind end)
    local closer = other:task(function() engine:close() end)
    assert.equal("closed", task:await())
    closer:await()
  end)

  it("may be called by a task of the engine", function()
    local engine = futures.new_engine { grace = 0 }
    local slow = engine:spawn(sys.sleep, 60)
    local reached
    local task = engine:task(function()
      engine:close()
      reached = select(2, pcall(engine.sleep, engine, 1)).kind
    end)
    assert.equal("closed", process.failure(task.await, task).kind)
    assert.same({ "closed", "failed" }, { reached, slow:status() })
  end)

  it("leaves other engines alone", function()
    local one, other = futures.new_engine(), futures.new_engine()
    local gate <close> = futures.gate()
    local f = other:spawn(gate.wait, 1)
    local g = other:spawn(give, one:spawn(sys.sleep, 60))
    one:with { grace = 0 }:spawn(sys.sleep, 60)
    one:close()
    assert.equal("running", f:status())
    assert.equal("closed", process.failure(g.await, g).kind)
    gate.open()
    assert.equal(1, f:await())
    other:close()
  end)

  it("is what the collector does, with what it has", function()
    local before = sys.fds()
    local gate <close> = futures.gate()
    local pids
    do
      local engine = fork_map.new { max_children = 2, on_unhandled = false, on_warning = false }
      local list = fill(engine, gate)
      list.running:detach()
      pids = process.children()
      engine:pollfd()
      list.running:pollfd()
    end
    for _ = 1, 4 do
      collectgarbage()
    end
    assert.is_true(#pids > 0)
    assert.same({}, process.children())
    gate.open()
    local after = sys.fds()
    for fd in pairs(after) do
      assert.is_not_nil(before[fd])
    end
  end)
end)

describe("the end of a Lua state", function()
  process.guard(before_each, after_each, 4)

  local PREAMBLE = [[
    package.path, package.cpath = %q, %q
    local fork_map = require "fork_map"
    local sys = require "specs_core"
    local engine = fork_map.new { max_children = 3 }
    local function hang() print(sys.getpid()) io.stdout:flush() sys.sleep(600) end
    kept = { engine:spawn(hang), engine:spawn(function()
      if sys.fork_once() == 0 then hang() end
      hang()
    end):detach(), engine:spawn(function() fork_map(hang) end) }
    kept.queued = engine:spawn(hang)
    kept.waiting = engine:spawn(hang, kept[1])
    kept.all = engine:all { kept[1], kept.queued }
    kept.within = engine:within(60, kept[1])
    kept.task = engine:task(function() engine:sleep(60) end)
    kept.awaiting = engine:task(function() kept[1]:await() end)
    kept[1]:on_settle(print)
    kept.done = engine:spawn(math.max, 1)
    engine:pollfd() kept[1]:pollfd()
    engine:step(0)
    while true do -- until those that are to hang are there
      local n = 0
      local file <close> = io.open("/proc/thread-self/children")
      for pid in file:read("a"):gmatch("%%d+") do
        n = n + 1
      end
      if n >= 3 then break end
    end
    sys.sleep(0.1)
  ]]

  for how, ending in pairs {
    ["by its end"] = "",
    ["by an error"] = "error('boom')",
    ["by os.exit with closing"] = "os.exit(0, true)",
    ["by os.exit without closing"] = "os.exit(0)",
    ["by a signal"] = "sys.raise(9)",
    ["with the engine dropped before"] = "kept, engine = nil, nil",
    ["with an engine that is closed"] = "engine:close()",
    ["inside a task"] = "engine:run(function() os.exit(0, true) end)",
  } do
    it("leaves no process, " .. how, function()
      local directory = project.make_directory()
      project.write(directory .. "/script.lua",
        PREAMBLE:format(package.path, package.cpath) .. ending)
      local pipe = assert(io.popen(("exec 2>&1; unset LD_PRELOAD; %s %s/script.lua"):format(
        project.lua, directory)))
      -- It ends when the last process that has it open has ended.
      local text = pipe:read("a")
      pipe:close()
      project.remove(directory)
      local n = 0
      for pid in text:gmatch("%f[^\n\0](%d+)\n") do
        n = n + 1
        process.eventually(function()
          return process.is_gone(math.tointeger(tonumber(pid)))
        end, "the end of a process")
      end
      assert.is_true(n >= 1, text)
      assert.not_matches("PANIC", text)
      assert.not_matches("attempt to", text)
    end)
  end
end)

describe("moves of cells", function()
  process.guard(before_each, after_each, 4)
  after_each(function() cells.set_trace(nil) end)

  it("are told to set_trace(), and are in the table of moves", function()
    local engine <close> = futures.new_engine { grace = 0 }
    local gate <close> = futures.gate()
    local moves, illegal = {}, {}
    cells.set_trace(function(kind, axis, from, to, cell)
      moves[#moves + 1] = ("%s %s %s>%s"):format(kind, axis, from, to)
      if not cells.MOVES[axis][from][to] or cell[axis] ~= to then
        illegal[#illegal + 1] = moves[#moves]
      end
    end)
    local f = engine:spawn(give, engine:spawn(gate.wait, 1)):on_settle(give)
    gate.open()
    f:await()
    engine:step(0)
    local slow = engine:spawn(sys.sleep, 60)
    slow:cancel(60)
    slow:cancel(0)
    slow:wait()
    cells.set_trace(nil)
    assert.same({}, illegal)
    assert.same({
      "job state waiting>started", "job state started>settled", "job pump parked>ready",
      "job pump ready>pumping", "job state waiting>started", "job pump pumping>done",
      "job state started>settled", "job pump parked>ready", "job pump ready>pumping",
      "job pump pumping>done", "job state waiting>started", "job stop none>asked",
      "job stop asked>forced", "job state started>settled",
    }, moves)
  end)

  it("that are not in the table are refused, and change nothing", function()
    local engine <close> = futures.new_engine()
    local refused = {
      state = { waiting = { "waiting" }, started = { "waiting", "started" },
        settled = { "waiting", "started", "settled" } },
      stop = { none = { "none" }, asked = { "none", "asked" },
        forced = { "none", "asked", "forced" } },
      pump = { parked = { "pumping", "pumping_again", "done", "parked" },
        ready = { "ready", "done", "parked" }, pumping = { "ready", "parked" },
        done = { "pumping", "pumping_again", "parked" }, pumping_again = { "done", "pumping" } },
    }
    local cell = setmetatable({}, cells.Cell)
    for axis, states in pairs(refused) do
      for from, list in pairs(states) do
        for _, to in ipairs(list) do
          cell[axis] = from
          assert.is_false(cell:move(axis, to))
          assert.equal(from, cell[axis])
        end
      end
    end
    local settled = engine:spawn(give, 1)
    settled:await()
    assert.is_false(settled.cell:succeed(1, { 2 }))
    assert.is_false(settled.cell:fail(cells.new_error("error", "no")))
    assert.equal(1, settled:await())
  end)

  it("leave a loop with nothing, whatever happened", function()
    local engine <close> = futures.new_engine { max_children = 2, grace = 0 }
    local loop = async.get_loop(engine)
    do
      local f, slow = engine:spawn(give), engine:spawn(sys.sleep, 60)
      engine:spawn(give, f, slow)
      engine:race { f, slow }:on_settle(give)
      engine:within(0.01, slow):wait()
      engine:task(function() slow:wait() end):wait()
    end
    futures.collect(engine)
    assert.same({ 0, 0, nil }, { loop.n_live, loop.n_jobs, engine:timeout() })
    assert.is_nil(next(loop.live))
    assert.is_false(loop:is_busy_in_lua())
    assert.equal(0, core.engine_stats(engine.core).running)
  end)
end)

describe("engine:step(0)", function()
  process.guard(before_each, after_each, 4)

  it("starts no more calls than it has time for, and says that there are more", function()
    local engine <close> = futures.new_engine { max_children = 1, grace = 0 }
    local slow = 0
    fork_map.at_fork { parent = function()
      local until_then = core.now() + slow
      while core.now() < until_then do end
    end }
    for _ = 1, 60 do
      engine:spawn(sys.sleep, 60):detach()
    end
    engine:configure { max_children = 12 }
    slow = 0.002
    local function count()
      return core.engine_stats(engine.core).running
    end
    for n = 2, 5 do
      assert.equal(0, engine:timeout())
      engine:step(0)
      assert.equal(n, count())
    end
    slow = 0
    while count() < 12 do
      engine:step(0.001)
    end
  end)
end)
