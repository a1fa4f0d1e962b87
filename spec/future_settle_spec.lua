-- SPDX-License-Identifier: MIT
local core = require "fork_map.core"
local fork_map = require "fork_map"
local futures = require "support.futures"
local process = require "support.process"
local sys = require "specs_core"

local function nothing() end

local function is_quiet(engine)
  local stats = core.engine_stats(engine.core)
  return stats.running == 0 and stats.queued == 0
end

describe("a future that nobody has any more", function()
  process.guard(before_each, after_each, 4)

  it("cancels its call, which runs", function()
    local engine <close>, log = futures.new_engine()
    local pid = engine:spawn(sys.sleep, 60):pid()
    futures.collect(engine)
    futures.step_until(engine, function() return is_quiet(engine) end, "the end of the call")
    assert.is_nil(process.state(pid))
    assert.same({}, log)
  end)

  it("cancels its call, which is in the queue or waits for arguments", function()
    local engine <close>, log = futures.new_engine { max_children = 1 }
    local gate <close> = futures.gate()
    local f = engine:spawn(gate.wait, 1)
    engine:spawn(print, "not reached")
    engine:spawn(print, f)
    futures.collect(engine)
    assert.equal(0, core.engine_stats(engine.core).queued)
    gate.open()
    assert.equal(1, f:await())
    assert.equal(1, core.engine_stats(engine.core).spawned)
    assert.same({}, log)
  end)

  it("lets its call run when a callback waits for it", function()
    local engine <close> = futures.new_engine()
    local gate <close> = futures.gate()
    local values
    engine:spawn(gate.wait, 1):on_settle(function(f) values = { f:poll() } end)
    futures.collect(engine)
    gate.open()
    futures.step_until(engine, function() return values end, "the callback")
    assert.same({ true, 1 }, values)
  end)

  for name, derive in pairs {
    map = function(_, f) return f:map(function(x) return x end) end,
    all = function(engine, f) return engine:all { f }:map(function(t) return t[1] end) end,
    any = function(engine, f) return engine:any { f } end,
    race = function(engine, f) return engine:race { f } end,
    within = function(engine, f) return engine:within(3600, f) end,
    argument = function(engine, f) return engine:spawn(function(x) return x end, f) end,
    task = function(engine, f) return engine:task(function() return f:await() end) end,
  } do
    it("lets its call run when it is part of another: " .. name, function()
      local engine <close>, log = futures.new_engine()
      local gate <close> = futures.gate()
      local derived = derive(engine, engine:spawn(gate.wait, 1))
      futures.collect(engine)
      gate.open()
      assert.equal(1, derived:await())
      assert.same({}, log)
    end)
  end

  it("lets its call run when it was detached", function()
    local engine <close>, log = futures.new_engine { max_children = 1 }
    local phone <close> = futures.telephone()
    local gate <close> = futures.gate()
    do
      local f = engine:spawn(gate.wait)
      assert.equal(f, f:detach())
      engine:spawn(phone.tell, "done"):detach()
    end
    futures.collect(engine)
    gate.open()
    futures.step_until(engine, function() return is_quiet(engine) end, "the end of the call")
    assert.equal("done", phone.hear())
    assert.same({}, log)
  end)

  it("ends a detached call with its engine", function()
    local phone <close> = futures.telephone()
    local pid
    do
      local engine <close> = futures.new_engine { grace = 0 }
      engine:spawn(function()
        phone.tell(sys.getpid())
        sys.sleep(60)
      end):detach()
      pid = phone.hear_pid()
    end
    assert.is_nil(process.state(pid))
  end)

  it("leaves what it was made of to others", function()
    local engine <close> = futures.new_engine()
    local gate <close> = futures.gate()
    local f = engine:spawn(gate.wait, 1)
    f:map(nothing)
    engine:all { f }
    engine:any { f }
    engine:race { f, f }
    engine:within(3600, f)
    engine:spawn(nothing, f)
    for _ in engine:as_completed {} do end
    futures.collect(engine)
    assert.equal("running", f:status())
    gate.open()
    assert.equal(1, f:await())
  end)

  it("may be dropped inside a callback, and inside a __gc metamethod", function()
    local engine <close>, log = futures.new_engine()
    local kept = engine:spawn(sys.sleep, 60)
    engine:spawn(nothing):on_settle(function()
      kept = nil
      collectgarbage()
    end)
    setmetatable({ f = engine:spawn(sys.sleep, 60) }, { __gc = function(t) t.f = nil end })
    futures.step_until(engine, function() return not kept end, "the callback")
    futures.collect(engine)
    futures.step_until(engine, function() return is_quiet(engine) end, "the end of the calls")
    assert.same({}, log)
  end)
end)

describe("local f <close>", function()
  process.guard(before_each, after_each, 4)

  it("cancels the call and waits for its end", function()
    local engine <close>, log = futures.new_engine()
    local pid, kept
    do
      local f <close> = engine:spawn(sys.sleep, 60)
      pid, kept = f:pid(), f
    end
    assert.is_nil(process.state(pid))
    assert.equal("cancelled", kept:status())
    kept = nil -- luacheck: ignore 311
    futures.collect(engine)
    assert.same({}, log)
  end)

  it("does so when an error leaves the block, which goes on", function()
    local engine <close> = futures.new_engine()
    local pid
    local ok, message = pcall(function()
      local f <close> = engine:spawn(sys.sleep, 60)
      pid = f:pid()
      error("boom", 0)
    end)
    assert.same({ false, "boom" }, { ok, message })
    assert.is_nil(process.state(pid))
  end)

  it("does so for calls that wait, and for derived futures with what they are made of", function()
    local engine <close> = futures.new_engine { max_children = 1 }
    local list
    do
      local a <close> = engine:spawn(sys.sleep, 60)
      local b <close> = engine:spawn(nothing)
      local c <close> = engine:spawn(nothing, a, b)
      local d <close> = engine:all { c }
      list = { a, b, c, d }
    end
    for _, f in ipairs(list) do
      assert.equal("cancelled", f:status())
    end
    assert.is_true(is_quiet(engine))
  end)

  it("leaves alone what has settled", function()
    local engine <close> = futures.new_engine()
    local kept
    do
      local f <close> = engine:spawn(function() return 1 end)
      f:await()
      kept = f
    end
    assert.equal(1, kept:await())
  end)

  it("only asks where it cannot wait: in a callback", function()
    local engine <close>, log = futures.new_engine()
    local kept
    local f = engine:spawn(nothing):on_settle(function()
      local inner <close> = engine:spawn(sys.sleep, 60)
      kept = inner
    end)
    f:wait()
    futures.step_until(engine, function() return kept and kept:wait(0) end, "the end of the call")
    assert.equal("cancelled", kept:status())
    assert.same({}, log)
  end)
end)

describe("future:on_settle()", function()
  process.guard(before_each, after_each, 4)

  it("calls callbacks once, later, in their order, with the future", function()
    local engine <close> = futures.new_engine()
    local f = engine:spawn(function() return 1 end)
    local seen = {}
    for i = 1, 3 do
      assert.equal(f, f:on_settle(function(g)
        seen[#seen + 1] = i
        assert(g == f and g:status() == "done")
      end))
    end
    f:wait()
    futures.collect(engine)
    assert.same({ 1, 2, 3 }, seen)
    f:on_settle(function() seen[#seen + 1] = 4 end)
    assert.same({ 1, 2, 3 }, seen)
    engine:step(0)
    engine:step(0)
    assert.same({ 1, 2, 3, 4 }, seen)
  end)

  it("may register more of them inside a callback", function()
    local engine <close> = futures.new_engine()
    local f = engine:spawn(nothing)
    local seen = {}
    f:on_settle(function(g)
      seen[1] = "outer"
      g:on_settle(function()
        seen[2] = "inner"
        g:on_settle(function() seen[3] = "innermost" end)
      end)
    end)
    futures.step_until(engine, function() return seen[3] end, "the callbacks")
    assert.same({ "outer", "inner", "innermost" }, seen)
  end)

  it("gives what one raises to on_unhandled, once, and calls the others", function()
    local errors = {}
    local engine <close> = fork_map.new { on_unhandled = function(err, why)
      errors[#errors + 1] = { err, why }
    end }
    local value = { code = 7 }
    local calls = 0
    local f = engine:spawn(nothing)
    f:on_settle(function() error(value) end)
    f:on_settle(function() calls = calls + 1 end)
    f:on_settle(function() error("text", 0) end)
    f:on_settle(function() error(nil) end)
    f:on_settle(function() calls = calls + 1 end)
    f:wait()
    engine:step(0)
    assert.equal(2, calls)
    assert.equal(3, #errors)
    assert.equal(value, errors[1][1].value)
    assert.same({ "error", "callback" }, { errors[1][1].kind, errors[1][2] })
    assert.same({ "text", "callback" }, { errors[2][1].message, errors[2][2] })
    assert.equal(fork_map.Error, getmetatable(errors[3][1]))
    assert.same({ true, n = 1 }, table.pack(f:poll()))
  end)

  it("goes on when on_unhandled raises itself", function()
    local warnings, calls = {}, 0
    local engine <close> = fork_map.new {
      on_unhandled = function() error("again") end,
      on_warning = function(message) warnings[#warnings + 1] = message end,
    }
    local f = engine:spawn(nothing)
    f:on_settle(function() error("boom") end)
    f:on_settle(function() calls = calls + 1 end)
    f:wait()
    engine:step(0)
    assert.equal(1, calls)
    assert.equal(1, #warnings)
    assert.matches("on_unhandled failed", warnings[1])
  end)

  it("lets a callback neither wait, step, close nor call", function()
    local engine <close>, log = futures.new_engine()
    local other <close> = futures.new_engine()
    local gate <close> = futures.gate()
    local f, slow = engine:spawn(nothing), other:spawn(gate.wait)
    local texts
    f:on_settle(function()
      texts = {}
      for _, fn in ipairs {
        function() slow:await() end,
        function() slow:wait(0) end,
        function() engine:sleep(0) end,
        function() engine:yield() end,
        function() engine(nothing) end,
        function() other(nothing) end,
        function() engine:map(1, nothing) end,
        function() engine:as_completed { slow }() end,
        function() engine:nursery(nothing) end,
        function() engine:run(nothing) end,
        function() engine:step(0) end,
        function() engine:close() end,
        function() other:close() end,
      } do
        texts[#texts + 1] = select(2, pcall(fn)) or "did not raise"
      end
      assert(f:wait() and f:wait(5) and select("#", f:await()) == 0)
    end)
    futures.step_until(engine, function() return texts end, "the callback")
    for i, text in ipairs(texts) do
      assert.matches("inside a callback", tostring(text), 1, true, "number " .. i)
    end
    assert.equal(13, #texts)
    assert.same({}, log)
    gate.open()
    slow:await()
  end)

  it("lets on_unhandled neither wait nor step", function()
    local texts = {}
    local engine, slow
    engine = fork_map.new { on_unhandled = function()
      for _, fn in ipairs {
        function() slow:await() end,
        function() engine(nothing) end,
        function() engine:step(0) end,
      } do
        texts[#texts + 1] = tostring(select(2, pcall(fn)))
      end
    end }
    local _ <close> = engine
    slow = engine:spawn(sys.sleep, 60)
    engine:spawn(nothing):on_settle(function() error "boom" end):wait()
    futures.step_until(engine, function() return #texts > 0 end, "on_unhandled")
    for _, text in ipairs(texts) do
      assert.matches("inside a callback", text, 1, true)
    end
    assert.equal(3, #texts)
  end)

  it("lets a callback not yield out of the engine", function()
    local engine <close>, log = futures.new_engine()
    local co = coroutine.wrap(function()
      engine:spawn(nothing):on_settle(function() coroutine.yield("out") end):wait()
      local g = engine:spawn(nothing):map(function() coroutine.yield("out") end)
      local err = process.failure(g.await, g)
      return "went through", err.message
    end)
    local what, message = co()
    assert.equal("went through", what)
    assert.matches("yield", message)
    engine:step(0)
    assert.equal(1, #log)
    assert.matches("^callback: .*yield", log[1])
  end)

  it("lets a callback spawn, also where no child is free", function()
    local engine <close> = futures.new_engine { max_children = 1 }
    local inner = {}
    engine:spawn(nothing):on_settle(function()
      for i = 1, 3 do
        inner[i] = engine:spawn(function() return i end)
      end
    end)
    futures.step_until(engine, function() return inner[3] end, "the callback")
    assert.same({ 1, 2, 3 }, { inner[1]:await(), inner[2]:await(), inner[3]:await() })
  end)

  it("lets what a callback spawned be a host as any: it may call, wait and run tasks", function()
    local engine <close>, log = futures.new_engine()
    local inner
    engine:spawn(nothing):on_settle(function()
      inner = engine:spawn(function()
        local called = fork_map(function() return "called" end)
        local awaited = fork_map.spawn(function() return "awaited" end):await()
        local ran = fork_map.run(function() return fork_map(function() return "ran" end) end)
        return called, awaited, ran
      end)
    end):wait()
    futures.step_until(engine, function() return inner end, "the callback")
    assert.same({ "called", "awaited", "ran" }, { inner:await() })
    assert.same({}, log)
  end)

  it("ends a chain of callbacks, each of which spawns, with the engine", function()
    local engine, log = futures.new_engine { grace = 0 }
    local n = 0
    local function again()
      n = n + 1
      if n > 1000 then
        error("it goes on and on", 0)
      end
      engine:spawn(nothing):on_settle(again)
    end
    again()
    futures.step_until(engine, function() return n > 3 end, "some calls")
    engine:close()
    assert.is_true(n < 1000)
    assert.is_true(#log <= 1)
  end)
end)

describe("a failure that nobody has looked at", function()
  process.guard(before_each, after_each, 4)

  it("goes to on_unhandled once, when the future is collected", function()
    local engine <close>, log = futures.new_engine()
    local f = engine:spawn(error, "boom", 0)
    f:wait()
    futures.collect(engine)
    assert.same({}, log)
    f = nil -- luacheck: ignore 311
    futures.collect(engine)
    futures.collect(engine)
    assert.same({ "unseen: boom" }, log)
  end)

  it("does so for one that was detached, and settled after its handle was gone", function()
    local engine <close>, log = futures.new_engine()
    engine:spawn(error, "boom", 0):detach()
    futures.collect(engine)
    futures.step_until(engine, function() return #log > 0 end, "the report")
    futures.collect(engine)
    assert.same({ "unseen: boom" }, log)
  end)

  it("does so after callbacks that did not look", function()
    local engine <close>, log = futures.new_engine()
    local calls = 0
    engine:spawn(error, "boom", 0):on_settle(function() calls = calls + 1 end)
    futures.step_until(engine, function() return calls == 1 end, "the callback")
    futures.collect(engine)
    assert.same({ "unseen: boom" }, log)
  end)

  it("is told of once when it went through derived futures", function()
    local engine <close>, log = futures.new_engine()
    local f = engine:all { engine:spawn(error, "boom", 0):map(nothing) }:map(nothing)
    f:wait()
    f = nil -- luacheck: ignore 311
    futures.collect(engine)
    assert.same({ "unseen: boom" }, log)
  end)

  for name, look in pairs {
    poll = function(_, f) f:poll() end,
    await = function(_, f) pcall(f.await, f) end,
    map = function(_, f) pcall(f.await, f:map(nothing)) end,
    all = function(engine, f) pcall(f.await, engine:all { f }) end,
    any = function(engine, f) pcall(f.await, engine:any { f, f }) end,
    within = function(engine, f) pcall(f.await, engine:within(60, f)) end,
    argument = function(engine, f) pcall(f.await, engine:spawn(print, f)) end,
    callback = function(engine, f)
      f:on_settle(function() f:poll() end)
      engine:step(0)
    end,
  } do
    it("is none after " .. name, function()
      local engine <close>, log = futures.new_engine()
      do
        local f = engine:spawn(error, "boom", 0)
        f:wait()
        look(engine, f)
      end
      futures.collect(engine)
      assert.same({}, log)
    end)
  end

  it("is none when the call was cancelled", function()
    local engine <close>, log = futures.new_engine()
    local f = engine:spawn(sys.sleep, 60)
    f:cancel(0)
    f:wait()
    f = nil -- luacheck: ignore 311
    futures.collect(engine)
    assert.same({}, log)
  end)

  it("is a warning when there is no on_unhandled, and nothing when that is false", function()
    local warnings = {}
    for _, on_unhandled in ipairs { "absent", false } do
      local engine <close> = fork_map.new {
        on_warning = function(message) warnings[#warnings + 1] = message end,
      }
      if not on_unhandled then
        engine:configure { on_unhandled = function() end }
      end
      engine:spawn(error, "boom", 0):wait()
      futures.collect(engine)
    end
    assert.same({ "fork_map: unhandled error (unseen): boom" }, warnings)
  end)
end)
