-- SPDX-License-Identifier: MIT
local fork_map = require "fork_map"
local process = require "support.process"
local quiet = require "support.quiet"
local sys = require "specs_core"

-- Step until all that was let go is gone.
local function let_go()
  collectgarbage()
  collectgarbage()
  process.eventually(function()
    fork_map.engine():step(0)
    return #process.children() == 0
  end, "what was let go ends")
  fork_map.engine():step(0)
end

describe("the block of a nursery", function()
  quiet.guard(before_each, after_each, 8)

  it("is left by goto, by break and by return, after all in it has ended", function()
    local ended = 0
    local function start(n)
      n:start(function()
        fork_map.sleep(0.001)
        ended = ended + 1
      end)
    end
    do
      local n <close> = fork_map.nursery()
      start(n)
      goto out
    end
    ::out::
    assert.equal(1, ended)
    for _ = 1, 3 do
      local n <close> = fork_map.nursery()
      start(n)
      if ended == 2 then
        break
      end
    end
    assert.equal(3, ended)
    assert.equal("value", (function()
      local n <close> = fork_map.nursery()
      start(n)
      return n:spawn(function() return "value" end):await()
    end)())
    assert.equal(4, ended)
    quiet.check()
  end)

  it("raises the failure of a child though nobody waited for it", function()
    assert.equal("exit", process.failure(function()
      local n <close> = fork_map.nursery()
      n:spawn(os.exit, 3)
    end).kind)
  end)

  it("lets the first failure win over what leaves the block", function()
    local err = process.failure(function()
      local n <close> = fork_map.nursery()
      n:start(error, "first")
      fork_map.sleep(60)
    end)
    assert.equal("first", err.value)
    err = process.failure(function()
      local n <close> = fork_map.nursery()
      n:start(error, "first")
      pcall(fork_map.sleep, 60)
      error("second", 0)
    end)
    assert.equal("first", err.value)
    assert.equal("second", err.others[1].value)
  end)

  it("raises the error of cancel() that has ended it", function()
    assert.equal("cancelled", process.failure(function()
      local n <close> = fork_map.nursery()
      n:cancel()
      fork_map.sleep(60)
    end).kind)
    do
      local n <close> = fork_map.nursery()
      n:start(fork_map.sleep, 60)
      n:cancel()
    end
  end)

  it("may hold others, which are left first", function()
    local order = {}
    do
      local a <close> = fork_map.nursery { deadline = 60 }
      local b <close> = fork_map.nursery()
      local c <close> = fork_map.nursery { deadline = 60 }
      for i, n in ipairs { a, b, c } do
        n:start(function()
          fork_map.sleep(0.001)
          order[#order + 1] = i
        end)
      end
      assert.same({ 1, 1, 1 }, { a:count(), b:count(), c:count() })
    end
    table.sort(order)
    assert.same({ 1, 2, 3 }, order)
    quiet.check()
  end)

  it("is stopped by one around it, three deep", function()
    local err = process.failure(function()
      local a <close> = fork_map.nursery { grace = 0 }
      local b <close> = fork_map.nursery { grace = 0 }
      local c <close> = fork_map.nursery { grace = 0 }
      c:spawn(sys.sleep, 60)
      b:start(fork_map.sleep, 60)
      a:start(error, "outermost")
      fork_map.sleep(60)
    end)
    assert.equal("outermost", err.value)
    quiet.check()
  end)

  it("is left by coroutine.close(), in which it waits", function()
    local ended
    local co = coroutine.create(function()
      local n <close> = fork_map.nursery()
      n:start(function()
        fork_map.sleep(0.001)
        ended = true
      end)
      coroutine.yield()
    end)
    coroutine.resume(co)
    assert.is_true(coroutine.close(co))
    assert.is_true(ended)
    quiet.check()
  end)

  for what, abandon in pairs {
    ["that dies by an error"] = function(co)
      coroutine.resume(co, true)
    end,
    ["that nobody resumes"] = function() end,
  } do
    it("is cancelled with a coroutine " .. what .. ", when that is collected", function()
      for _, deadline in ipairs { 0, 60 } do
        local inside = {}
        local co = coroutine.create(function()
          local n <close> = fork_map.nursery {
            grace = 0, deadline = deadline > 0 and deadline or nil,
          }
          inside[1] = n:spawn(sys.sleep, 60)
          inside[2] = n:start(fork_map.sleep, 60)
          if coroutine.yield() then
            error("dies")
          end
        end)
        coroutine.resume(co)
        fork_map.yield()
        abandon(co)
        co = nil -- luacheck: ignore
        let_go()
        assert.same({ "cancelled", "cancelled" }, { inside[1]:status(), inside[2]:status() })
        quiet.check()
      end
    end)
  end

  it("in a coroutine that is abandoned tells of its failure", function()
    quiet.watch(function(engine, seen)
      local co = coroutine.create(function()
        local n <close> = engine:nursery()
        n:start(error, "boom")
        coroutine.yield()
      end)
      coroutine.resume(co)
      engine:sleep(0.001)
      co = nil -- luacheck: ignore
      collectgarbage()
      collectgarbage()
      engine:step(0)
      assert.equal(1, #seen)
      assert.same({ "boom", "unseen" }, { seen[1].err.value, seen[1].why })
    end)
  end)

  it("is no hindrance to waits that come after it was abandoned", function()
    local n = fork_map.nursery() -- never left
    n:spawn(sys.sleep, 60):cancel(0)
    n = nil -- luacheck: ignore
    let_go()
    fork_map.sleep(0.001)
    assert.equal(1, fork_map.task(function()
      local inner = fork_map.nursery()
      inner:start(fork_map.sleep, 60)
      inner = nil -- luacheck: ignore
      for _ = 1, 3 do
        collectgarbage()
        fork_map.sleep(0.001)
      end
      return 1
    end):await())
  end)

  it("with a body is cancelled with a coroutine that nobody resumes", function()
    local f
    local co = coroutine.create(function()
      fork_map.nursery(function(n)
        f = n:spawn(sys.sleep, 60)
        coroutine.yield()
      end, { grace = 0 })
    end)
    coroutine.resume(co)
    co = nil -- luacheck: ignore
    let_go()
    assert.equal("cancelled", f:status())
  end)
end)

describe("nursery:adopt()", function()
  quiet.guard(before_each, after_each, 4)

  it("takes over what runs, waits for it and raises its failure", function()
    local f = fork_map.spawn(os.exit, 3)
    assert.equal("exit", process.failure(fork_map.nursery, function(n)
      assert.equal(f, n:adopt(f))
      assert.equal(1, n:count())
    end).kind)
    local ended
    local task = fork_map.task(function() fork_map.sleep(0.001) ended = true end)
    fork_map.nursery(function(n) n:adopt(task) end)
    assert.is_true(ended)
  end)

  it("takes what has settled, and it is among the results", function()
    local f = fork_map.spawn(function() return 5 end)
    f:wait()
    fork_map.nursery(function(n)
      n:adopt(f)
      for settled in n:results() do
        assert.equal(f, settled)
      end
      assert.equal(0, n:count())
    end)
    local failed = fork_map.task(error, "boom")
    failed:wait()
    assert.equal("boom", process.failure(fork_map.nursery, function(n)
      n:adopt(failed)
    end).value)
  end)

  it("takes derived and combined futures", function()
    local taken = {}
    fork_map.nursery(function(n)
      local a = n:spawn(function() return 1 end)
      taken[1] = n:adopt(a:map(function(x) return x + 1 end))
      taken[2] = n:adopt(fork_map.all { a, taken[1] })
      taken[3] = n:adopt(fork_map.within(60, n:start(fork_map.sleep, 0.002)))
    end)
    assert.equal(2, taken[1]:await())
    assert.same({ 1, 2 }, taken[2]:await())
    assert.equal("done", taken[3]:status())
    assert.equal("in map", process.failure(fork_map.nursery, function(n)
      n:adopt(n:start(function() end):map(function() error("in map", 0) end))
      fork_map.sleep(60)
    end).value)
  end)

  it("has it cancelled with the rest", function()
    local f = fork_map.with { grace = 0 }:spawn(sys.sleep, 60)
    pcall(fork_map.nursery, function(n)
      n:adopt(f)
      error("boom")
    end)
    assert.equal("cancelled", f:status())
  end)

  it("refuses what is in a nursery, and what is no future", function()
    fork_map.nursery(function(n)
      local f = n:start(function() end)
      assert.error_matches(function() n:adopt(f) end, "is in a nursery already")
      fork_map.nursery(function(inner)
        assert.error_matches(function() inner:adopt(f) end, "is in a nursery already")
      end)
      assert.error_matches(function() n:adopt(42) end, "a future is expected, not a number")
      assert.equal(1, n:count())
    end)
  end)

  it("takes a future of another engine", function()
    local engine <close> = fork_map.new {}
    fork_map.nursery(function(n)
      n:adopt(engine:spawn(function() return 1 end))
      n:adopt(engine:task(function() engine:sleep(0.001) end))
    end)
    quiet.check(engine)
  end)
end)

describe("nursery:results()", function()
  quiet.guard(before_each, after_each, 4)

  it("gives each future once, in the order in which they settle", function()
    local gates, opens, order = {}, {}, {}
    for i = 1, 3 do
      gates[i], opens[i] = quiet.gate()
    end
    fork_map.nursery(function(n)
      for i = 1, 3 do
        n:start(function() gates[i]:wait() return i end)
      end
      opens[2]()
      for f in n:results() do
        order[#order + 1] = f:await()
        opens[#order == 1 and 3 or 1]()
      end
    end)
    assert.same({ 2, 3, 1 }, order)
  end)

  it("gives what is added meanwhile too", function()
    local sum = 0
    fork_map.nursery(function(n)
      local function add(k)
        n:start(function() fork_map.yield() return k end)
      end
      add(1)
      for f in n:results() do
        local k = f:await()
        sum = sum + k
        if k < 5 then
          add(k + 1)
        end
      end
    end)
    assert.equal(15, sum)
  end)

  it("gives failures too with on_error = keep, and goes on", function()
    local statuses = {}
    local err = process.failure(fork_map.nursery, function(n)
      n:start(error, "first")
      n:start(function() end)
      n:start(fork_map.sleep, 60):cancel()
      for f in n:results() do
        statuses[#statuses + 1] = f:status()
      end
    end, { on_error = "keep" })
    assert.equal("first", err.value)
    table.sort(statuses)
    assert.same({ "cancelled", "done", "failed" }, statuses)
  end)

  it("is shared by several loops, also of tasks of the nursery", function()
    for _, who in ipairs { "inside", "outside" } do
      local taken, count, n_added, takers = {}, 0, 11, {}
      fork_map.nursery(function(n)
        local function take()
          for f in n:results() do
            assert.is_nil(taken[f])
            taken[f], count = true, count + 1
            fork_map.yield()
            if count <= 20 then
              n_added = n_added + 1
              n:start(fork_map.yield)
            end
          end
        end
        for i = 1, 3 do
          takers[i] = who == "inside" and n:start(take) or fork_map.task(take)
        end
        for i = 1, 10 do
          n:start(fork_map.sleep, i % 3 * 0.001)
        end
        n:spawn(function() end)
        for i = 1, 3 do
          takers[i]:await()
        end
      end)
      assert.is_true(count >= n_added, who)
      quiet.check()
    end
  end)

  it("may be taken by what a task of the nursery holds", function()
    local count = 0
    fork_map.nursery(function(n)
      n:start(fork_map.sleep, 0.001)
      for _ = 1, 2 do
        n:start(function()
          fork_map.nursery(function(inner)
            for _ = 1, 2 do
              inner:start(function()
                for _ in n:results() do
                  count = count + 1
                end
              end)
            end
          end)
        end)
      end
    end)
    assert.is_true(count >= 1)
  end)

  it("is for several tasks that add as well", function()
    local n_settled = 0
    fork_map.nursery(function(n)
      for _ = 1, 4 do
        n:start(function()
          for _ = 1, 5 do
            fork_map.yield()
            n:start(fork_map.yield)
          end
        end)
      end
      for _ in n:results() do
        n_settled = n_settled + 1
      end
    end)
    assert.equal(24, n_settled)
  end)

  it("ends when the nursery is cancelled, in its body by the error", function()
    local kind, outside
    fork_map.nursery(function(n)
      n:start(fork_map.sleep, 60)
      outside = fork_map.task(function()
        for _ in n:results() do end -- luacheck: ignore
        return "ended"
      end)
      fork_map.yield()
      n:cancel()
      kind = select(2, pcall(function()
        for _ in n:results() do end -- luacheck: ignore
      end)).kind
    end)
    assert.equal("cancelled", kind)
    assert.equal("ended", outside:await())
  end)

  it("keeps what nobody has taken until the nursery is left", function()
    local handle
    fork_map.nursery(function(n)
      handle = n
      local f = n:start(function() return 1 end)
      f:await()
      fork_map.sleep(0.001)
      assert.equal(0, n:count())
      assert.equal(f, n:results()())
      n:start(function() end)
    end)
    assert.is_nil(handle:results()())
  end)
end)

describe("nursery:close(), join() and count()", function()
  quiet.guard(before_each, after_each, 4)

  it("close() lets nothing more be added, and what is there go on", function()
    fork_map.nursery(function(n)
      local f = n:start(function() fork_map.yield() return 1 end)
      n:close()
      for _, name in ipairs { "spawn", "start" } do
        local err = process.failure(n[name], n, function() end)
        assert.equal("closed", err.kind)
        assert.matches("nursery is closed", err.message)
      end
      assert.equal("closed", process.failure(n.adopt, n, fork_map.task(function() end)).kind)
      assert.equal(1, n:count())
      assert.equal(1, f:await())
    end)
  end)

  it("join() waits inside of the body, which may add more afterwards", function()
    fork_map.nursery(function(n)
      n:start(fork_map.sleep, 0.001)
      n:spawn(function() end)
      n:join()
      assert.equal(0, n:count())
      n:start(function() end)
    end)
  end)

  it("join() from outside waits too, and closes", function()
    local joined
    fork_map.nursery(function(n)
      local gate, open = quiet.gate()
      n:start(function() gate:wait() end)
      local outside = fork_map.task(function()
        n:join()
        joined = n:count()
      end)
      fork_map.yield()
      assert.equal("closed", process.failure(n.start, n, function() end).kind)
      open()
      outside:await()
      assert.equal(0, joined)
    end)
  end)

  it("join() is refused in a task of the nursery, and in one below that", function()
    assert.error_matches(function()
      fork_map.nursery(function(n)
        n:start(function() n:join() end):await()
      end)
    end, "would deadlock: it is called by a task of the nursery")
    assert.error_matches(function()
      fork_map.nursery(function(n)
        n:start(function()
          fork_map.nursery(function(inner)
            inner:start(function() n:join() end)
          end)
        end):await()
      end)
    end, "would deadlock")
  end)

  it("count() tells how many have not settled", function()
    fork_map.nursery(function(n)
      assert.equal(0, n:count())
      local gate, open = quiet.gate()
      n:start(function() gate:wait() end)
      n:adopt(gate)
      n:spawn(function() end):wait()
      fork_map.sleep(0.001)
      assert.equal(2, n:count())
      open()
      n:join()
      assert.equal(0, n:count())
    end)
  end)

  it("are methods that want a nursery", function()
    local n <close> = fork_map.nursery()
    for _, name in ipairs {
      "spawn", "start", "adopt", "results", "cancel", "close", "join", "count",
    } do
      assert.error_matches(function() n[name]() end,
        "nursery:" .. name .. ": call it with a colon")
    end
    assert.error_matches(function() n:spawn(42) end, "a function is expected, not a number")
    assert.error_matches(function() n:start() end, "a function is expected, not a nil")
    assert.error_matches(function() n:cancel(-1) end, "seconds must be")
  end)

  it("can be called when it was left; what would add is refused", function()
    local n
    fork_map.nursery(function(handle) n = handle end)
    assert.equal("closed", process.failure(n.spawn, n, function() end).kind)
    assert.equal("closed", process.failure(n.start, n, function() end).kind)
    n:cancel()
    n:cancel(0)
    n:close()
    n:join()
    assert.equal(0, n:count())
    fork_map.sleep(0)
  end)
end)
