-- SPDX-License-Identifier: MIT
local fork_map = require "fork_map"
local process = require "support.process"
local quiet = require "support.quiet"
local sys = require "specs_core"

describe("max_active of a nursery", function()
  quiet.guard(before_each, after_each, 8)

  it("bounds how many processes there are at once; the others wait", function()
    local readers, writers = {}, {}
    for i = 1, 7 do
      readers[i], writers[i] = sys.pipe()
    end
    fork_map.nursery(function(n)
      local list = {}
      for i = 1, 7 do
        list[i] = n:spawn(function() sys.read(readers[i]) end)
      end
      for i = 4, 7 do
        assert.equal("waiting", list[i]:status())
      end
      n:start(function() end):await() -- tasks do not count
      for i = 1, 7 do
        assert.is_true(#process.children() <= 3)
        sys.write(writers[i], "x")
        list[i]:await()
      end
      assert.is_true(#process.children() <= 3)
    end, { max_active = 3 })
    for i = 1, 7 do
      sys.close(readers[i])
      sys.close(writers[i])
    end
  end)

  it("never starts what is cancelled as it waits", function()
    local pids = {}
    pcall(fork_map.nursery, function(n)
      local first = n:spawn(sys.sleep, 60)
      for i = 1, 5 do
        local f = n:spawn(sys.sleep, 60)
        f:on_settle(function() pids[i] = f:usage() or f:status() end)
      end
      fork_map.yield()
      assert.is_not_nil(first:pid())
      n:cancel(0)
    end, { max_active = 1 })
    assert.same({ "cancelled", "cancelled", "cancelled", "cancelled", "cancelled" }, pids)
  end)

  it("goes on with the next when one is cancelled by itself, or fails to be kept", function()
    local last
    pcall(fork_map.nursery, function(n)
      n:spawn(sys.sleep, 60):cancel(0)
      local waiting = n:spawn(sys.sleep, 60)
      n:spawn(os.exit, 3)
      last = n:spawn(function() return "last" end)
      waiting:cancel()
    end, { max_active = 1, on_error = "keep" })
    assert.equal("last", last:await())
  end)

  it("starts jobs whose arguments are futures of the same nursery", function()
    assert.equal(10, fork_map.nursery(function(n)
      local f = n:spawn(function() return 1 end)
      for _ = 1, 9 do
        f = n:spawn(function(x) return x + 1 end, f)
      end
      return f:await()
    end, { max_active = 1 }))
  end)

  it("lets 1,000 processes through, eight at once", function()
    local count = fork_map.nursery(function(n)
      for i = 1, 1000 do
        n:spawn(function() return i end)
      end
      local count = 0
      for _ in n:results() do
        count = count + 1
      end
      return count
    end, { max_active = 8 })
    assert.equal(1000, count)
    quiet.check()
  end)
end)

describe("a nursery of many tasks", function()
  quiet.guard(before_each, after_each)

  it("waits for 5,000 of them", function()
    local count = 0
    fork_map.nursery(function(n)
      for i = 1, 5000 do
        n:start(function()
          fork_map.yield()
          fork_map.sleep(i % 5 * 0.001)
          count = count + 1
        end)
      end
    end)
    assert.equal(5000, count)
    quiet.check()
  end)

  it("cancels 5,000 of them when one fails", function()
    local cancelled = 0
    local err = process.failure(fork_map.nursery, function(n)
      for i = 1, 5000 do
        n:start(function()
          if i == 2500 then
            fork_map.sleep(0.001)
            error("one", 0)
          end
          local _, why = pcall(fork_map.sleep, 60)
          cancelled = cancelled + (why.kind == "cancelled" and 1 or 0)
        end)
      end
    end)
    assert.equal("one", err.value)
    assert.equal(4999, cancelled)
    quiet.check()
  end)

  it("may be 100 deep", function()
    local function nest(depth)
      return fork_map.nursery(function(n)
        if depth == 0 then
          return n:spawn(function() return "bottom" end):await()
        end
        return n:start(nest, depth - 1):await()
      end)
    end
    assert.equal("bottom", nest(100))
    local function fail(depth)
      return fork_map.nursery(function(n)
        n:start(fork_map.sleep, 60)
        if depth == 0 then
          error("bottom", 0)
        end
        n:start(fail, depth - 1)
        fork_map.sleep(60)
      end)
    end
    assert.equal("bottom", tostring(select(2, pcall(fail, 50))))
    quiet.check()
  end)
end)

describe("options of a nursery", function()
  quiet.guard(before_each, after_each, 2)

  it("are defaults of the calls in it", function()
    local err = process.failure(fork_map.nursery, function(n)
      n:spawn(function()
        io.write("text")
        io.stdout:flush()
        sys.sleep(60)
      end)
    end, { timeout = 0.2, grace = 0, name = "label", output = "capture" })
    assert.equal("timeout", err.kind)
    assert.equal("label", err.name)
    assert.equal("text", err.stdout)
    err = process.failure(fork_map.nursery, function(n)
      n:spawn(os.exit, 3)
    end, { retries = 2 })
    assert.equal(3, err.attempt)
  end)

  it("go over those of a view and an engine", function()
    local engine <close> = fork_map.new { name = "engine", output = "capture" }
    local function fail(n)
      n:spawn(function()
        io.write("text")
        error("boom", 0)
      end)
    end
    local err = process.failure(engine.nursery, engine, fail)
    assert.same({ "engine", "text" }, { err.name, err.stdout })
    local view = engine:with { name = "view" }
    assert.equal("view", process.failure(view.nursery, view, fail).name)
    err = process.failure(view.nursery, view, fail, { name = "nursery" })
    assert.same({ "nursery", "text" }, { err.name, err.stdout })
    do
      local n <close> = view:nursery { on_error = "keep" }
      assert.equal(1, n:spawn(function() return 1 end):await())
    end
    quiet.check(engine)
  end)

  it("give up all in it when its engine is closed", function()
    local engine = fork_map.new { grace = 0 }
    local err = process.failure(engine.nursery, engine, function(n)
      n:spawn(sys.sleep, 60)
      n:start(engine.sleep, engine, 60)
      fork_map.task(function() engine:close() end)
      fork_map.sleep(0.001)
      engine:sleep(60)
    end)
    assert.equal("closed", err.kind)
    quiet.check(engine)
  end)
end)
