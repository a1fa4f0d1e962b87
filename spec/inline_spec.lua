-- SPDX-License-Identifier: MIT
-- What is particular to a map without workers: it runs in this process, whose
-- hooks, random numbers and coroutines are to be as they were.

local core = require "fork_map.core"
local fork_map = require "fork_map"
local process = require "support.process"
local sys = require "specs_core"

local failure = process.failure
local view = fork_map.with { workers = 0 }

local function echo(item)
  return item
end

local function spin()
  while true do end
end

describe("a map without workers", function()
  process.guard(before_each, after_each)

  after_each(function()
    debug.sethook()
  end)

  it("forks nothing, and shows what its items change", function()
    local before = core.engine_stats(fork_map.engine().core).spawned
    local seen = {}
    view:map(3, function(i) seen[i] = sys.getpid() end)
    assert.same({ sys.getpid(), sys.getpid(), sys.getpid() }, seen)
    assert.equal(before, core.engine_stats(fork_map.engine().core).spawned)
  end)

  it("hands out values as they are after they have crossed", function()
    local shared = { 1 }
    local results = view:map({ shared, shared, setmetatable({ 2 }, { __index = shared }) }, echo)
    assert.same({ { 1 }, { 1 }, { 2 }, n = 3 }, results)
    assert.not_equal(shared, results[1])
    assert.not_equal(results[1], results[2])
    assert.is_nil(getmetatable(results[3]))
    local sent
    view:map(1, function() fork_map.emit(shared) end, { on_event = function(v) sent = v end })
    assert.same(shared, sent)
    assert.not_equal(shared, sent)
  end)

  it("leaves the random numbers of the host as they would be without it", function()
    math.randomseed(42)
    local expected = { math.random(1 << 40), math.random(1 << 40) }
    math.randomseed(42)
    local first = math.random(1 << 40)
    view:map(5, function(i)
      if i == 4 then
        error("no", 0)
      end
      return math.random()
    end, { seed = 1, on_error = "collect" })
    view:map(2, function() math.random() fork_map.stop() end, { seed = 1 })
    assert.same(expected, { first, math.random(1 << 40) })
    math.randomseed(os.time())
  end)

  it("sets no hook unless there is a time limit, and puts back that of the host", function()
    local function hook() end
    debug.sethook(hook, "l", 7)
    local seen = view:map(1, function() return { debug.gethook() == hook } end)
    assert.same({ true }, seen[1])
    view:map(2, function(i) if i == 2 then spin() end end, { timeout = 0.05, on_error = "collect" })
    assert.same({ hook, "l", 7 }, { debug.gethook() })
    view:map(2, function() fork_map.stop() end, { timeout = 5, deadline = 6 })
    assert.same({ hook, "l", 7 }, { debug.gethook() })
    pcall(view.map, view, 2, error, { timeout = 5 })
    assert.same({ hook, "l", 7 }, { debug.gethook() })
  end)

  it("limits the time of coroutines that an item makes", function()
    local _, errors = view:map(2, function(i)
      return coroutine.wrap(function()
        if i == 1 then
          spin()
        end
        return i
      end)()
    end, { timeout = 0.05, on_error = "collect" })
    assert.equal("timeout", errors[1].kind)
    assert.is_nil(errors[2])
    local kept
    view:map(1, function()
      kept = coroutine.create(function()
        coroutine.yield()
        local sum = 0
        for i = 1, 100000 do sum = sum + i end
        return sum
      end)
      coroutine.resume(kept)
    end, { timeout = 0.01 })
    sys.sleep(0.02)
    assert.same({ true, 5000050000 }, { coroutine.resume(kept) })
  end)

  it("cannot be outrun by an item that catches everything", function()
    local results, errors = view:map(2, function(i)
      while i == 1 do
        pcall(spin)
      end
      return i
    end, { timeout = 0.05, on_error = "collect" })
    assert.same({ nil, 2, n = 2 }, results)
    assert.equal("timeout", errors[1].kind)
  end)

  it("takes an item that ends too late for one that took too long", function()
    local _, errors = view:map(2, function(i) if i == 1 then sys.sleep(0.06) end return i end, {
      timeout = 0.05, on_error = "collect",
    })
    assert.equal("timeout", errors[1].kind)
    assert.is_nil(errors[2])
  end)

  it("is ended by its deadline within an item, and begins no further", function()
    local n = 0
    local err = failure(view.map, view, 10, function(i)
      n = n + 1
      if i == 2 then
        spin()
      end
      return i
    end, { deadline = 0.05, on_error = "collect", retries = 9, retry_on = { "timeout" } })
    assert.same({ "timeout", nil, 1 }, { err.kind, err.index, err.partial[1] })
    assert.equal(2, n)
  end)

  it("knows which of two limits it is that has passed", function()
    local _, errors = view:map(1, function()
      local _, inner = view:map(3, function(k) if k == 2 then spin() end end, {
        timeout = 0.05, on_error = "collect",
      })
      return inner[2].kind
    end, { timeout = 5, on_error = "collect" })
    assert.is_nil(errors)
    local n = 0
    _, errors = view:map(1, function()
      view:map(30, function() n = n + 1 spin() end, { timeout = 5, on_error = "collect" })
    end, { timeout = 0.05, on_error = "collect" })
    assert.equal("timeout", errors[1].kind)
    assert.equal(1, n)
  end)

  it("runs exit when an item fails, stops or raises out of a handler", function()
    local n = 0
    local opts = { exit = function() n = n + 1 end }
    pcall(view.map, view, 3, error, opts)
    view:map(3, function() fork_map.stop() end, opts)
    opts.on_event = function() error("in the handler", 0) end
    pcall(view.map, view, 3, fork_map.emit, opts)
    local iterator <close> = view:imap(3, echo, opts)
    iterator()
    iterator:close()
    assert.equal(4, n)
  end)

  it("has no hold on what a child of an item does", function()
    local results = view:map(1, function()
      return fork_map(function()
        local began = sys.now()
        while sys.now() - began < 0.1 do end
        return { fork_map.worker().id, view:map(2, function(k) return k end)[2] }
      end)
    end, { timeout = 10 })
    assert.same({ 1, 2 }, results[1])
  end)

  it("forgets an item that never came back, for those in other processes", function()
    local stuck = coroutine.wrap(function()
      view:map(1, function() coroutine.yield() end)
    end)
    pcall(stuck)
    assert.is_nil(fork_map.worker())
    local ids = fork_map.map(1, function() return fork_map.worker().id end, { workers = 1 })
    assert.equal(1, ids[1])
    ids = view:map(1, function()
      return fork_map.map(1, function() return fork_map.worker().id end, { workers = 1 })[1]
    end)
    assert.equal(1, ids[1])
  end)

  it("is interrupted by a hook of the host that raises", function()
    local began = sys.now()
    debug.sethook(function()
      if sys.now() - began > 0.05 then
        debug.sethook()
        error("interrupted!", 0)
      end
    end, "", 100)
    local err = failure(view.map, view, 3, spin)
    assert.equal("interrupted!", err.message)
  end)
end)
