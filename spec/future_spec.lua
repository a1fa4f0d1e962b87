-- SPDX-License-Identifier: MIT
local core = require "fork_map.core"
local fork_map = require "fork_map"
local futures = require "support.futures"
local process = require "support.process"
local sys = require "specs_core"

local function is_process_of(pid)
  return pid ~= nil and process.state(pid) ~= nil
end

describe("fork_map.spawn()", function()
  process.guard(before_each, after_each, 4)

  it("runs the function in a child, beside its caller", function()
    local gate <close> = futures.gate()
    local f = fork_map.spawn(function()
      gate.wait()
      return sys.getpid()
    end)
    assert.equal("running", f:status())
    local pid = f:pid()
    assert.is_true(is_process_of(pid))
    gate.open()
    assert.equal(pid, f:await())
    assert.is_nil(process.state(pid))
  end)

  it("gives all the values, their count kept, as often as they are asked for", function()
    local f = fork_map.spawn(function() return nil, 1, nil, "x", nil end)
    assert.same({ nil, 1, nil, "x", nil, n = 5 }, table.pack(f:await()))
    assert.same({ nil, 1, nil, "x", nil, n = 5 }, table.pack(f:await()))
    assert.same({ true, nil, 1, nil, "x", nil, n = 6 }, table.pack(f:poll()))
  end)

  it("gives nothing when the function returns nothing", function()
    local f = fork_map.spawn(function() end)
    assert.equal(0, select("#", f:await()))
    assert.same({ true, n = 1 }, table.pack(f:poll()))
  end)

  it("gives the same table every time", function()
    local f = fork_map.spawn(function() return { 1 } end)
    local t = f:await()
    assert.equal(t, f:await())
    assert.equal(t, select(2, f:poll()))
    assert.same({ 1 }, t)
  end)

  it("gives the same error every time", function()
    local f = fork_map.spawn(error, { code = 7 })
    local err = process.failure(f.await, f)
    assert.same({ "error", 7 }, { err.kind, err.value.code })
    assert.equal(err, process.failure(f.await, f))
    assert.same({ false, err, n = 2 }, table.pack(f:poll()))
  end)

  it("carries 10,000 arguments and 10,000 values", function()
    local numbers = {}
    for i = 1, 10000 do
      numbers[i] = i
    end
    local values = table.pack(fork_map.spawn(function(...) return ... end,
      table.unpack(numbers)):await())
    assert.same({ 10000, 10000 }, { values.n, values[10000] })
  end)

  it("is a method of engines and views, with their options", function()
    local engine <close> = fork_map.new { name = "mine" }
    local f = engine:spawn(error, "x")
    assert.equal("mine", process.failure(f.await, f).name)
    f = engine:with { name = "other", timeout = 0.05, grace = 0 }:spawn(sys.sleep, 60)
    local err = process.failure(f.await, f)
    assert.same({ "other", "timeout" }, { err.name, err.kind })
    f = fork_map.with { name = "view" }:spawn(error, "x")
    assert.equal("view", process.failure(f.await, f).name)
  end)

  it("tries again as `retries` says, behind one future", function()
    local f = fork_map.with { retries = 2, retry_on = { "exit" }, backoff = 0.01 }
      :spawn(function() os.exit(fork_map.worker() and 1 or 3) end)
    local err = process.failure(f.await, f)
    assert.same({ "exit", 3 }, { err.kind, err.attempt })
  end)

  it("keeps what the child prints, with output = \"capture\"", function()
    local f = fork_map.with { output = "capture" }:spawn(function()
      io.write("out")
      io.stderr:write("err")
      return 1
    end)
    assert.is_nil(f:output())
    assert.equal(1, f:await())
    assert.same({ "out", "err", 0 }, { f:output() })
    assert.same({ "out", "err", 0 }, { f:output() })
    f = fork_map.spawn(function() end)
    f:await()
    assert.equal(0, select("#", f:output()))
  end)

  it("tells what the process used, once it has settled, also when it failed", function()
    for _, fn in ipairs { function() end, error } do
      local f = fork_map.spawn(fn, "x")
      assert.is_nil(f:usage())
      f:wait()
      f:poll()
      local usage = f:usage()
      assert.is_true(usage.wall >= 0 and usage.user >= 0 and usage.sys >= 0)
      assert.is_true(usage.max_rss > 100000)
      assert.is_nil(f:pid())
    end
  end)

  it("may be called where the engine runs a callback: a line of output", function()
    local inner
    local engine <close> = fork_map.new()
    engine:with { output = function()
      inner = inner or engine:spawn(function() return "inner" end)
    end }(print, "line")
    assert.equal("inner", inner:await())
  end)

  it("is refused in a __gc metamethod, by whatever name", function()
    local engine <close> = fork_map.new()
    local nursery <close> = engine:nursery()
    local texts = {}
    setmetatable({}, { __gc = function()
      for _, object in ipairs { engine, engine:with {}, nursery } do
        texts[#texts + 1] = select(2, pcall(object.spawn, object, print))
      end
    end })
    collectgarbage()
    assert.equal(3, #texts)
    for _, text in ipairs(texts) do
      assert.matches("inside a __gc metamethod", tostring(text), 1, true)
    end
  end)

  it("keeps an engine alive that nobody has any more", function()
    local f = fork_map.new():spawn(function() return 1 end)
    collectgarbage()
    collectgarbage()
    assert.equal(1, f:await())
    f = nil -- luacheck: ignore 311
    collectgarbage()
    collectgarbage()
  end)

  it("is told apart from others by tostring()", function()
    local f = fork_map.spawn(function() end)
    assert.matches("^fork_map.Future: ", tostring(f))
    f:await()
  end)

  it("may run hooks of at_fork; one that raises before the fork fails the call", function()
    assert.same({ "spawn", true, "error", true, 1 }, { fork_map(function()
      local raises
      local count = 0
      fork_map.at_fork {
        before = function() if raises == "before" then error("not now", 0) end end,
        parent = function() count = count + 1 end,
        child = function() if raises == "child" then error("not here", 0) end end,
      }
      raises = "before"
      local f = fork_map.spawn(function() end)
      local first = process.failure(f.await, f)
      raises = "child"
      f = fork_map.spawn(function() end)
      local second = process.failure(f.await, f)
      return first.kind, first.message:find("not now", 1, true) ~= nil, second.kind,
        second.message:find("not here", 1, true) ~= nil, count
    end) })
  end)

  describe("misuse", function()
    local f
    before_each(function()
      f = fork_map.spawn(function() end)
      f:await()
    end)

    for _, value in ipairs { false, 1, "x", {} } do
      it(("raises at the caller's line for a %s instead of a function"):format(type(value)),
        function()
          local engine <close> = fork_map.new()
          local view = engine:with {}
          local line = debug.getinfo(1, "l").currentline
          local texts = {
            futures.misuse(function() local r = fork_map.spawn(value) return r end),
            futures.misuse(function() local r = engine:spawn(value) return r end),
            futures.misuse(function() local r = view:spawn(value) return r end),
          }
          for i, text in ipairs(texts) do
            assert.equal(("spec/future_spec.lua:%d: fork_map.spawn: a function is expected, "
              .. "not a %s")
              :format(line + i + 1, type(value)), text)
          end
        end)
    end

    for _, name in ipairs { "status", "poll", "wait", "await", "cancel", "on_settle", "map",
      "detach", "pid", "usage", "output", "pollfd", "events", "timeout" } do
      it(("raises at the caller's line when %s is called without a colon"):format(name), function()
        local line = debug.getinfo(1, "l").currentline + 1
        local text = futures.misuse(function() local r = f[name](5) return r end)
        assert.equal(("spec/future_spec.lua:%d: fork_map: future:%s: call it with a colon")
          :format(line, name), text)
      end)
    end

    for _, name in ipairs { "wait", "await", "cancel" } do
      for _, value in ipairs { -1, 0 / 0, "1", {}, true } do
        it(("raises at the caller's line for %s(%s)"):format(name, type(value) == "table" and "{}"
          or tostring(value)), function()
          local line = debug.getinfo(1, "l").currentline + 1
          local text = futures.misuse(function() local r = f[name](f, value) return r end)
          assert.equal(("spec/future_spec.lua:%d: fork_map: future:%s: seconds must be a number "
            .. "of at least 0"):format(line, name), text)
        end)
      end
    end

    for _, name in ipairs { "on_settle", "map" } do
      it(("raises at the caller's line when %s gets no function"):format(name), function()
        local line = debug.getinfo(1, "l").currentline + 1
        local text = futures.misuse(function() local r = f[name](f, 5) return r end)
        assert.equal(("spec/future_spec.lua:%d: fork_map: future:%s: a function is expected, not a "
          .. "number"):format(line, name), text)
      end)
    end
  end)
end)

describe("status() and poll()", function()
  process.guard(before_each, after_each, 4)

  it("tell every state, and poll gives nothing before the end", function()
    local engine <close> = fork_map.new { max_children = 1 }
    local gate <close> = futures.gate()
    local a = engine:spawn(gate.wait, 1)
    local b = engine:spawn(function() return 2 end)
    local c = engine:spawn(function(x) return x end, b)
    assert.same({ "running", "queued", "waiting" }, { a:status(), b:status(), c:status() })
    assert.equal(0, select("#", a:poll()))
    assert.equal(0, select("#", b:poll()))
    assert.equal(0, select("#", c:poll()))
    assert.is_nil(b:pid())
    assert.is_nil(c:pid())
    gate.open()
    assert.equal(2, c:await())
    assert.same({ "done", "done", "done" }, { a:status(), b:status(), c:status() })
  end)

  it("tell a failure and a cancel apart", function()
    local failed, cancelled = fork_map.spawn(error, "x"), fork_map.spawn(sys.sleep, 60)
    assert.is_true(cancelled:cancel(0))
    failed:wait()
    cancelled:wait()
    assert.same({ "failed", "cancelled" }, { failed:status(), cancelled:status() })
    assert.equal("x", select(2, failed:poll()).value)
    assert.equal("cancelled", select(2, cancelled:poll()).kind)
  end)

  it("never let the engine go on", function()
    local f = fork_map.spawn(function() end)
    local pid = f:pid()
    process.eventually(function() return process.is_gone(pid) end, "the end of the child")
    assert.equal("running", f:status())
    assert.equal(0, select("#", f:poll()))
    f:await()
  end)
end)

describe("arguments that are futures", function()
  process.guard(before_each, after_each, 8)

  it("are replaced by their first values, with nils between them", function()
    local engine <close> = fork_map.new()
    local gate <close> = futures.gate()
    local a = engine:spawn(gate.wait, "a", "second")
    local b = engine:spawn(function() end)
    local f = engine:spawn(function(...)
      return select("#", ...), ...
    end, nil, a, nil, b, 5, nil)
    assert.equal("waiting", f:status())
    gate.open()
    assert.same({ 6, nil, "a", nil, nil, 5, nil, n = 7 }, table.pack(f:await()))
  end)

  it("may have settled before, may be there twice, and may be of another engine", function()
    local one <close> = fork_map.new()
    local other <close> = fork_map.new()
    local gate <close> = futures.gate()
    local settled = one:spawn(function() return 1 end)
    settled:await()
    local later = one:spawn(gate.wait, 2)
    local f = other:spawn(function(...) return table.concat({ ... }, " ") end,
      settled, later, settled, later)
    gate.open()
    assert.equal("1 2 1 2", f:await())
  end)

  it("are values of the process as it is when the call begins", function()
    local upvalue = 1
    local gate <close> = futures.gate()
    local f = fork_map.spawn(function() return upvalue end, fork_map.spawn(gate.wait))
    upvalue = 2
    gate.open()
    assert.equal(2, f:await())
  end)

  it("make the call fail with the first that fails, which does not begin", function()
    local engine <close>, log = futures.new_engine()
    local gate <close> = futures.gate()
    local open = engine:spawn(gate.wait)
    local fails = engine:spawn(error, "boom", 0)
    local f = engine:spawn(function() error("not reached") end, open, fails)
    local err = process.failure(f.await, f)
    assert.same({ "boom", "failed" }, { err.value, f:status() })
    assert.equal(err, select(2, fails:poll()))
    assert.equal("running", open:status())
    local again = engine:spawn(print, fails)
    assert.equal("failed", again:status())
    assert.equal(err, process.failure(again.await, again))
    gate.open()
    open:await()
    assert.same({}, log)
  end)

  it("that are cancelled cancel the call that waits for them", function()
    local a = fork_map.spawn(sys.sleep, 60)
    local f = fork_map.spawn(print, a)
    a:cancel(0)
    assert.equal("cancelled", process.failure(f.await, f).kind)
    assert.equal("cancelled", f:status())
  end)

  it("of an engine that is closed make the call fail", function()
    local other = fork_map.new { grace = 0 }
    local f = fork_map.spawn(print, other:spawn(sys.sleep, 60))
    other:close()
    assert.equal("closed", process.failure(f.await, f).kind)
  end)

  it("make a chain of 100 calls, one child at a time", function()
    local engine <close> = fork_map.new { max_children = 1 }
    local f = engine:spawn(function() return 0 end)
    for _ = 1, 100 do
      f = engine:spawn(function(n) return n + 1 end, f)
    end
    assert.equal("waiting", f:status())
    assert.equal(100, f:await())
    assert.equal(101, core.engine_stats(engine.core).spawned)
  end)

  it("may be there twice on each of 60 levels, and waited for below a task", function()
    local engine <close> = fork_map.new()
    local gate <close> = futures.gate()
    local f = engine:spawn(gate.wait, 1)
    for _ = 1, 60 do
      f = engine:spawn(function(a, b) return (a + b) / 2 end, f, f)
    end
    local t = engine:task(function()
      return coroutine.wrap(function()
        gate.open()
        return f:await()
      end)()
    end)
    assert.equal(1, t:await())
  end)
end)

describe("future:cancel()", function()
  process.guard(before_each, after_each, 4)

  it("ends a process at its request, and is then without effect", function()
    local engine <close> = fork_map.new()
    local f = engine:spawn(sys.sleep, 60)
    local pid = f:pid()
    assert.is_true(f:cancel())
    assert.is_false(f:cancel())
    assert.is_false(f:cancel(0))
    assert.equal("cancelled", process.failure(f.await, f).kind)
    assert.is_false(f:cancel())
    assert.is_nil(process.state(pid))
  end)

  it("keeps a call in the queue from ever beginning", function()
    local engine <close> = fork_map.new { max_children = 1 }
    local gate <close> = futures.gate()
    local a, b = engine:spawn(gate.wait, 1), engine:spawn(print, "not reached")
    assert.is_true(b:cancel())
    assert.equal("queued", b:status())
    assert.is_false(b:cancel())
    assert.equal("cancelled", process.failure(b.await, b).kind)
    assert.equal(1, core.engine_stats(engine.core).spawned)
    assert.is_nil(b:usage())
    gate.open()
    assert.equal(1, a:await())
  end)

  it("keeps a call that waits for its arguments from ever beginning, and leaves those", function()
    local engine <close> = fork_map.new()
    local gate <close> = futures.gate()
    local a = engine:spawn(gate.wait, 1)
    local f = engine:spawn(print, a)
    assert.is_true(f:cancel())
    assert.same({ "cancelled", "running" }, { f:status(), a:status() })
    assert.is_false(f:cancel())
    gate.open()
    assert.equal(1, a:await())
  end)

  it("has no effect on what has settled, nor takes back its values", function()
    local engine <close> = fork_map.new()
    local f = engine:spawn(function() return 1 end)
    f:await()
    assert.is_false(f:cancel())
    assert.is_false(f:cancel(0))
    assert.same({ "done", 1 }, { f:status(), f:await() })
  end)

  it("gives a child that asks cancelled() time to end by itself", function()
    local engine <close> = fork_map.new()
    local phone <close> = futures.telephone()
    local f = engine:with { grace = 60 }:spawn(function()
      fork_map.cancelled()
      phone.tell("ready")
      while not fork_map.cancelled() do
        sys.sleep(0.001)
      end
      return "tidied up"
    end)
    phone.hear()
    assert.is_true(f:cancel())
    f:wait()
    -- The result came after the cancel: what happened first, is told.
    local ok, what = f:poll()
    if ok then
      assert.equal("tidied up", what)
    else
      assert.equal("cancelled", what.kind)
    end
  end)

  it("forces a child that does not end within the grace", function()
    local engine <close> = fork_map.new()
    local phone <close> = futures.telephone()
    local f = engine:with { grace = 60 }:spawn(function()
      fork_map.cancelled()
      phone.tell(sys.getpid())
      while true do
        sys.sleep(1)
      end
    end)
    local pid = phone.hear_pid()
    assert.is_true(f:cancel(0.05))
    local took = process.timed(f.wait, f)
    assert.is_true(took < 30)
    assert.equal("cancelled", f:status())
    assert.is_nil(process.state(pid))
  end)

  it("takes a shorter grace, and 0 for at once, though it was asked before", function()
    local engine <close> = fork_map.new()
    for _, grace in ipairs { 0, 0.01 } do
      local phone <close> = futures.telephone()
      local f = engine:with { grace = 3600 }:spawn(function()
        fork_map.cancelled()
        phone.tell("ready")
        sys.sleep(3600)
      end)
      phone.hear()
      assert.is_true(f:cancel())
      assert.is_false(f:wait(0.01))
      assert.is_false(f:cancel(grace))
      f:wait()
      assert.equal("cancelled", f:status())
    end
  end)

  it("ends the descendants too", function()
    local engine <close> = fork_map.new()
    local phone <close> = futures.telephone()
    local f = engine:spawn(function()
      if sys.fork_once() == 0 then
        phone.tell(sys.getpid())
        sys.sleep(3600)
      end
      fork_map(function()
        phone.tell(sys.getpid())
        sys.sleep(3600)
      end)
    end)
    local first = phone.hear()
    local text = first:find("\n") and first or first .. "\n" .. phone.hear()
    f:cancel(0)
    f:wait()
    for pid in text:gmatch("%d+") do
      process.eventually(function()
        return process.is_gone(math.tointeger(tonumber(pid)))
      end, "the end of a descendant")
    end
  end)

  it("loses against a result that was whole before", function()
    local engine <close> = fork_map.new()
    local f = engine:spawn(function() return "whole" end)
    local pid = f:pid()
    process.eventually(function() return process.is_gone(pid) end, "the end of the child")
    f:cancel(0)
    assert.equal("whole", f:await())
    assert.equal("done", f:status())
  end)

  it("keeps a call that waits for another try from having one", function()
    local engine <close> = fork_map.new()
    local f = engine:with { retries = 5, retry_on = { "exit" }, backoff = 3600 }
      :spawn(os.exit, 3)
    futures.step_until(engine, function() return f:status() == "queued" end, "the first try")
    assert.is_nil(f:pid())
    assert.is_true(f:cancel())
    f:wait()
    assert.equal("cancelled", f:status())
  end)

  it("may be called by a hook of at_fork, for the call that is about to begin", function()
    assert.same({ "cancelled", 2 }, { fork_map(function()
      local engine <close> = fork_map.new { max_children = 1 }
      local list = { engine:spawn(function() end), engine:spawn(print, "not reached") }
      fork_map.at_fork { before = function() list[2]:cancel() end }
      list[3] = engine:spawn(function() return 2 end)
      list[2]:wait()
      return list[2]:status(), list[3]:await()
    end) })
  end)

  it("may be called inside a callback, for others and itself", function()
    local engine <close>, log = futures.new_engine { grace = 0 }
    local other = engine:spawn(sys.sleep, 60)
    local effects
    engine:spawn(function() end):on_settle(function(f)
      effects = { f:cancel(), other:cancel(), other:cancel(0) }
    end)
    assert.equal("cancelled", process.failure(other.await, other).kind)
    assert.same({ false, true, false }, effects)
    assert.same({}, log)
  end)
end)

describe("10,000 futures at once", function()
  process.guard(before_each, after_each)

  it("all settle, one child in four at a time, and nothing is left of them #slow", function()
    local before = sys.fds()
    local n = sys.sanitized and 1000 or 10000
    local engine = fork_map.new { max_children = 4 }
    local list = {}
    collectgarbage()
    local before_them = collectgarbage("count")
    for i = 1, n do
      list[i] = engine:spawn(function() return i end)
    end
    local of_them = collectgarbage("count") - before_them
    for i = n, 1, -1 do
      assert.equal(i, list[i]:await())
    end
    assert.equal(n, core.engine_stats(engine.core).spawned)
    list = nil -- luacheck: ignore 311
    futures.collect(engine)
    -- The engine keeps a few records for those that come.
    assert.is_true(collectgarbage("count") - before_them < of_them / 10 + 256)
    engine:close()
    assert.same(before, sys.fds())
  end)

  it("may be dropped all at once", function()
    local engine <close>, log = futures.new_engine { max_children = 2, grace = 0 }
    for _ = 1, 1000 do
      engine:spawn(sys.sleep, 60)
    end
    futures.collect(engine)
    futures.step_until(engine, function()
      local stats = core.engine_stats(engine.core)
      return stats.running == 0 and stats.queued == 0
    end, "the end of all")
    assert.same({}, log)
  end)
end)
