-- SPDX-License-Identifier: MIT
local core = require "fork_map.core"
local fork_map = require "fork_map"
local futures = require "support.futures"
local process = require "support.process"
local sys = require "specs_core"

local function give(...)
  return ...
end

describe("future:map()", function()
  process.guard(before_each, after_each, 4)

  it("gives what the function makes of the values, in this process, nils included", function()
    local engine <close> = fork_map.new()
    local here = {}
    local f = engine:spawn(function() return nil, 2, nil end):map(function(...)
      here[1] = sys.getpid()
      return select("#", ...), ..., nil
    end)
    assert.equal("waiting", f:status())
    assert.same({ 3, nil, nil, n = 3 }, table.pack(f:await()))
    assert.equal(sys.getpid(), here[1])
    assert.equal("done", f:status())
    assert.is_nil(f:pid())
    assert.is_nil(f:usage())
    assert.equal(0, select("#", f:output()))
  end)

  it("gives what would not cross from a process", function()
    local engine <close> = fork_map.new()
    local f = engine:spawn(give, 1):map(function() return print, io.stdout end)
    assert.same({ print, io.stdout }, { f:await() })
  end)

  it("runs the function once, however often it is asked", function()
    local engine <close> = fork_map.new()
    local n = 0
    local f = engine:spawn(give, 1):map(function() n = n + 1 return {} end)
    assert.equal(f:await(), f:await())
    f:wait()
    assert.equal(1, n)
  end)

  it("fails as the call does, without the function, or with what the function raises", function()
    local engine <close>, log = futures.new_engine()
    local f = engine:spawn(error, "boom", 0)
    local g = f:map(function() error("not reached") end)
    local err = process.failure(g.await, g)
    assert.same({ "boom", select(2, f:poll()) }, { err.message, err })
    local value = {}
    local h = engine:spawn(give):map(function() error(value) end)
    err = process.failure(h.await, h)
    assert.equal(value, err.value)
    assert.same({ "error", "failed" }, { err.kind, h:status() })
    assert.same({}, log)
  end)

  it("cancels the call when it is cancelled, and is cancelled when the call is", function()
    local engine <close> = fork_map.new { grace = 0 }
    local f = engine:spawn(sys.sleep, 60)
    local g = f:map(give)
    assert.is_true(g:cancel())
    assert.equal("cancelled", g:status())
    f:wait()
    assert.equal("cancelled", f:status())
    f = engine:spawn(sys.sleep, 60)
    g = f:map(give)
    f:cancel()
    assert.equal("cancelled", process.failure(g.await, g).kind)
    assert.equal("cancelled", g:status())
  end)

  it("may be mapped on and on", function()
    local engine <close> = fork_map.new()
    local f = engine:spawn(give, 0)
    for _ = 1, 1000 do
      f = f:map(function(x) return x + 1 end)
    end
    assert.equal(1000, f:await())
  end)

  it("is cancelled from the end of a long chain to its beginning", function()
    local engine <close> = fork_map.new()
    local f = engine:spawn(sys.sleep, 60)
    local last = f
    for _ = 1, sys.sanitized and 1000 or 100000 do
      last = last:map(give)
    end
    assert.is_true(last:cancel(0))
    f:wait()
    assert.equal("cancelled", f:status())
  end)

  it("may spawn in the function, and gives the future as it is", function()
    local engine <close> = fork_map.new()
    local f = engine:spawn(give, 1):map(function(x) return engine:spawn(give, x + 1) end)
    assert.equal(2, f:await():await())
  end)
end)

describe("all()", function()
  process.guard(before_each, after_each, 4)

  it("gives the first value of each, under its key", function()
    local engine <close> = fork_map.new()
    local settled = engine:spawn(give, "settled")
    settled:await()
    local key = {}
    local f = engine:all {
      engine:spawn(give, 1, 2), settled, x = engine:spawn(give, "x"), [key] = engine:spawn(give),
      [2.5] = settled,
    }
    assert.same({ 1, "settled", x = "x", [2.5] = "settled" }, f:await())
    assert.equal(f:await(), f:await())
  end)

  it("of nothing is an empty table, at once", function()
    local f = fork_map.all {}
    assert.equal("done", f:status())
    assert.same({}, f:await())
  end)

  it("fails with the first that fails, and leaves the others to who has them", function()
    local engine <close>, log = futures.new_engine()
    local gate <close> = futures.gate()
    local slow = engine:spawn(gate.wait, 1)
    local pid = engine:spawn(sys.sleep, 60)
    local f = engine:all { slow, pid, engine:spawn(error, "boom", 0) }
    pid = pid:pid()
    assert.equal("boom", process.failure(f.await, f).message)
    futures.collect(engine)
    futures.step_until(engine, function() return process.state(pid) == nil end,
      "the end of what nobody has")
    assert.equal("running", slow:status())
    gate.open()
    assert.equal(1, slow:await())
    assert.same({}, log)
  end)

  it("takes futures of other engines, and the same one twice", function()
    local one <close> = fork_map.new()
    local other <close> = fork_map.new()
    local f = one:spawn(give, 1)
    assert.same({ 1, 1, 2 }, other:all({ f, f, other:spawn(give, 2) }):await())
  end)

  it("cancels all of them when it is cancelled", function()
    local engine <close> = fork_map.new { grace = 0, max_children = 1 }
    local list = { engine:spawn(sys.sleep, 60), engine:spawn(give) }
    list[3] = engine:spawn(give, list[2])
    local f = engine:all(list)
    assert.is_true(f:cancel())
    assert.is_false(f:cancel())
    for _, inner in ipairs(list) do
      inner:wait()
      assert.equal("cancelled", inner:status())
    end
  end)

  it("does not mind that the table is changed afterwards", function()
    local engine <close> = fork_map.new()
    local list = { engine:spawn(give, 1) }
    local f = engine:all(list)
    list[1], list[2] = nil, 5
    assert.same({ 1 }, f:await())
  end)
end)

describe("any() and race()", function()
  process.guard(before_each, after_each, 4)

  it("any() gives the values of the first that succeeds", function()
    local engine <close>, log = futures.new_engine { grace = 0 }
    local failed = engine:spawn(error, "boom")
    failed:wait()
    local f = engine:any { a = engine:spawn(sys.sleep, 60), b = failed,
      c = engine:spawn(give, nil, 2) }
    assert.same({ nil, 2, n = 2 }, table.pack(f:await()))
    futures.collect(engine)
    futures.step_until(engine, function()
      return core.engine_stats(engine.core).running == 0
    end, "the end of the others")
    assert.same({}, log)
  end)

  it("any() fails as the first did when all have, with the others", function()
    local engine <close> = futures.new_engine { max_children = 1 }
    local a, b, c = engine:spawn(error, "a", 0), engine:spawn(error, "b", 0),
      engine:spawn(error, "c", 0)
    local f = engine:any { c, b, a }
    local err = process.failure(f.await, f)
    assert.same({ "a", "b", "c" }, { err.message, err.others[1].message, err.others[2].message })
    local single = engine:any { engine:spawn(error, "alone", 0) }
    err = process.failure(single.await, single)
    assert.same({ "alone", nil }, { err.message, err.others })
  end)

  it("any() leaves the errors of what it is made of as they are", function()
    local engine <close> = futures.new_engine { max_children = 1 }
    local a, b = engine:spawn(error, "a", 0), engine:spawn(error, "b", 0)
    local f = engine:any { a, b }
    f:wait()
    f:poll()
    assert.is_nil(select(2, a:poll()).others)
    local same = engine:any { a, a }
    local err = process.failure(same.await, same)
    assert.same({ "a", "a" }, { err.message, err.others[1].message })
    assert.is_nil(err.others[1].others)
  end)

  it("race() settles as the first that settles, be it a failure", function()
    local engine <close> = futures.new_engine { grace = 0 }
    local slow = engine:spawn(sys.sleep, 60)
    assert.same({ 1, 2 }, { engine:race({ slow, engine:spawn(give, 1, 2) }):await() })
    local f = engine:race { slow, x = engine:spawn(error, "boom", 0) }
    assert.equal("boom", process.failure(f.await, f).message)
    assert.equal("running", slow:status())
    slow:cancel(0)
    f = engine:race { slow }
    assert.equal("cancelled", process.failure(f.await, f).kind)
    assert.equal("cancelled", f:status())
  end)

  it("take what has settled before", function()
    local engine <close> = fork_map.new { grace = 0 }
    local settled, slow = engine:spawn(give, 1), engine:spawn(sys.sleep, 60)
    settled:wait()
    assert.equal(1, engine:any({ slow, settled }):await())
    assert.equal(1, engine:race({ slow, settled }):await())
  end)

  for _, name in ipairs { "any", "race" } do
    it(name .. "() cancels all of them when it is cancelled", function()
      local engine <close> = fork_map.new { grace = 0 }
      local list = { engine:spawn(sys.sleep, 60), engine:spawn(sys.sleep, 60) }
      local f = engine[name](engine, list)
      assert.is_true(f:cancel())
      for _, inner in ipairs(list) do
        inner:wait()
        assert.equal("cancelled", inner:status())
      end
    end)
  end
end)

describe("within()", function()
  process.guard(before_each, after_each, 4)

  it("settles as the future does, in time", function()
    local engine <close> = futures.new_engine()
    local f = engine:within(3600, engine:spawn(give, 1, nil))
    assert.same({ 1, nil, n = 2 }, table.pack(f:await()))
    f = engine:within(math.huge, engine:spawn(error, "boom", 0))
    assert.equal("boom", process.failure(f.await, f).message)
    assert.is_nil(engine:timeout())
  end)

  it("fails after the time, and cancels the future", function()
    local engine <close> = futures.new_engine { grace = 0 }
    for _, seconds in ipairs { 0.02, 0 } do
      local f = engine:spawn(sys.sleep, 60)
      local g = engine:within(seconds, f)
      assert.same({ "timeout", "failed" }, { process.failure(g.await, g).kind, g:status() })
      f:wait()
      assert.equal("cancelled", f:status())
    end
  end)

  it("counts time that nobody steps the engine in", function()
    local engine <close> = futures.new_engine { grace = 0 }
    local f = engine:within(0.01, engine:spawn(sys.sleep, 60))
    sys.sleep(0.02)
    engine:step(0)
    assert.equal("failed", f:status())
    assert.equal("timeout", select(2, f:poll()).kind)
  end)

  it("cancels the future when it is cancelled", function()
    local engine <close> = fork_map.new { grace = 0 }
    local f = engine:spawn(sys.sleep, 60)
    assert.is_true(engine:within(60, f):cancel())
    f:wait()
    assert.equal("cancelled", f:status())
  end)
end)

describe("as_completed()", function()
  process.guard(before_each, after_each, 4)

  it("gives each future once, in the order in which they settle", function()
    local engine <close> = futures.new_engine()
    local gates = {}
    local list = {}
    for i = 1, 3 do
      gates[i] = futures.gate()
      list[i] = engine:spawn(gates[i].wait, i)
    end
    local order = {}
    gates[3].open()
    for f in engine:as_completed(list) do
      order[#order + 1] = f:await()
      if gates[order[#order] - 1] then
        gates[order[#order] - 1].open()
      end
    end
    assert.same({ 3, 2, 1 }, order)
  end)

  it("gives failed ones too, keyed ones, settled ones, and those of other engines", function()
    local engine <close>, log = futures.new_engine()
    local other <close> = fork_map.new()
    local settled = engine:spawn(give, "settled")
    settled:wait()
    local seen = {}
    for f in engine:as_completed { settled, x = engine:spawn(error, "boom", 0),
      y = other:spawn(give, "other") } do
      local ok, what = f:poll()
      seen[#seen + 1] = ok and what or what.message
    end
    table.sort(seen)
    assert.same({ "boom", "other", "settled" }, seen)
    assert.same({}, log)
  end)

  it("of nothing ends at once", function()
    assert.is_nil(fork_map.as_completed {}())
  end)

  it("lets go of the rest when its loop is left, by break or by an error", function()
    local engine <close> = fork_map.new { grace = 0 }
    local kept = engine:spawn(sys.sleep, 60)
    local n = 0
    for f in engine:as_completed { kept, engine:spawn(give), engine:spawn(sys.sleep, 60) } do
      n = n + 1
      if f:status() == "done" then break end
    end
    assert.equal(1, n)
    pcall(function()
      for f in engine:as_completed { kept, engine:spawn(give), engine:spawn(sys.sleep, 60) } do
        assert(f:status() == nil, "boom")
      end
    end)
    futures.collect(engine)
    futures.step_until(engine, function()
      return core.engine_stats(engine.core).running == 1
    end, "the end of the rest")
    assert.equal("running", kept:status())
  end)

  it("may be asked on when it has ended, and be shared by two tasks", function()
    local engine <close> = fork_map.new()
    local list = {}
    for i = 1, 10 do
      list[i] = engine:spawn(give, i)
    end
    local next_one = engine:as_completed(list)
    local function sum()
      local total = 0
      for f in next_one do
        total = total + f:await()
      end
      return total
    end
    local a, b = engine:task(sum), engine:task(sum)
    assert.equal(55, a:await() + b:await())
    assert.is_nil(next_one())
    assert.is_nil(next_one())
  end)
end)

describe("misuse of what combines futures", function()
  process.guard(before_each, after_each, 4)

  local f
  before_each(function()
    f = fork_map.spawn(give)
    f:await()
  end)

  for _, name in ipairs { "all", "any", "race", "as_completed" } do
    it(("raises at the caller's line: %s"):format(name), function()
      local engine <close> = fork_map.new()
      for _, case in ipairs {
        { nil, "a table of futures is expected, not a nil" },
        { 5, "a table of futures is expected, not a number" },
        { f, "a table of futures is expected, not a future" },
        { { f, 5 }, "[2] is not a future but a number" },
        { { x = "y" }, "[x] is not a future but a string" },
      } do
        local line = debug.getinfo(1, "l").currentline
        local texts = {
          futures.misuse(function() local r = fork_map[name](case[1]) return r end),
          futures.misuse(function() local r = engine[name](engine, case[1]) return r end),
        }
        for i, text in ipairs(texts) do
          assert.equal(("spec/future_combine_spec.lua:%d: fork_map.%s: %s")
            :format(line + i + 1, name, case[2]), text)
        end
      end
    end)
  end

  for _, name in ipairs { "any", "race" } do
    it(("raises when there is no future at all: %s"):format(name), function()
      local line = debug.getinfo(1, "l").currentline + 1
      local text = futures.misuse(function() local r = fork_map[name] {} return r end)
      assert.equal(("spec/future_combine_spec.lua:%d: fork_map.%s: at least one future is needed")
        :format(line, name), text)
    end)
  end

  it("raises at the caller's line: within, sleep", function()
    local here = debug.getinfo(1, "l").currentline
    for i, text in ipairs {
      futures.misuse(function() local r = fork_map.within(f, 5) return r end),
      futures.misuse(function() local r = fork_map.within(-1, f) return r end),
      futures.misuse(function() local r = fork_map.within(5, print) return r end),
      futures.misuse(function() local r = fork_map.sleep("1") return r end),
      futures.misuse(function() local r = fork_map.sleep(0 / 0) return r end),
      futures.misuse(function() local r = fork_map.engine():step(-1) return r end),
      futures.misuse(function() local r = fork_map.engine():step("x") return r end),
    } do
      local name = i <= 3 and "within" or i <= 5 and "sleep" or "engine:step"
      local what = i == 3 and "a future is expected, not a function"
        or "seconds must be a number of at least 0"
      assert.equal(("spec/future_combine_spec.lua:%d: fork_map.%s: %s"):format(here + i + 1, name,
        what), text)
    end
  end)
end)
