-- SPDX-License-Identifier: MIT
-- What options do to a pool: how many workers it has, how much may wait, how it ends.

local fork_map = require "fork_map"
local futures = require "support.futures"
local process = require "support.process"
local sys = require "specs_core"

local function echo(...)
  return ...
end

-- Waits for a byte, which lets one call end.
local function new_valve()
  local reader, writer = sys.pipe()
  local valve = {}
  function valve.wait(x)
    sys.read(reader, 1)
    return x
  end
  function valve.open(n)
    sys.write(writer, ("x"):rep(n or 1))
  end
  return setmetatable(valve, { __close = function()
    sys.close(reader)
    sys.close(writer)
  end })
end

-- Step until this holds.
local function step_until(condition, what)
  local deadline = sys.now() + 10
  while not condition() do
    assert.is_true(sys.now() < deadline, what)
    fork_map.engine():step(0.01)
  end
end

describe("options of pools", function()
  it("are refused at the caller's line when they are wrong", function()
    local cases = {
      { { min = -1 }, 'option "min" must be an integer from 0 to 4096' },
      { { max = "many" }, 'option "max" must be' },
      { { min = 3, max = 2 }, 'option "min" is 3, and "max" is 2' },
      { { load = 0 }, 'option "load" must be an integer from 1 to 256' },
      { { load = 257 }, 'option "load" must be' },
      { { start = -1 }, 'option "start" must be' },
      { { stop = "x" }, 'option "stop" must be' },
      { { max_queue = 0 }, 'option "max_queue" must be' },
      { { init = 1 }, 'option "init" must be a function' },
      { { chunk = 1 }, 'unknown option "chunk"' },
      { { lod = 1 }, 'did you mean "load"' },
      { { limits = { memory = "x" } }, 'option "limits.memory"' },
    }
    for _, case in ipairs(cases) do
      local ok, text = pcall(function()
        fork_map.pool(echo, case[1])
      end)
      assert.is_false(ok)
      assert.is_truthy(text:find(case[2], 1, true), text)
      assert.matches("^spec/pool_options_spec.lua:%d+: ", text)
    end
    for _, handler in ipairs { 7, "no name", true } do
      assert.is_false((pcall(fork_map.pool, handler, {})))
    end
  end)

  it("of methods are refused at the caller's line too", function()
    local pool <close> = fork_map.pool(echo, { max = 1 })
    for _, misuse in ipairs {
      function() pool:resize(2, 1) end, function() pool:resize(1) end,
      function() pool:resize("a", 2) end, function() pool:close { drian = true } end,
      function() pool:close { drain = 1 } end, function() pool:map(3, { on_error = "x" }) end,
      function() pool:map "list" end, function() pool.submit(1) end,
    } do
      local ok, text = pcall(misuse)
      assert.is_false(ok)
      assert.matches("^spec/pool_options_spec.lua:%d+: fork_map", text)
    end
  end)
end)

describe("the workers of a pool", function()
  process.guard(before_each, after_each, 9)

  it("are none before the first call, and at least min of them", function()
    local lazy <close> = fork_map.pool(echo)
    assert.equal(0, lazy:stats().workers)
    local eager <close> = fork_map.pool(echo, { min = 3, max = 3 })
    assert.equal(3, eager:stats().workers)
    assert.equal(3, eager.workers)
    step_until(function() return eager:stats().idle == 3 end, "ready")
  end)

  it("become more while calls wait, up to max", function()
    local valve <close> = new_valve()
    local pool <close> = fork_map.pool(valve.wait, {
      max = 3, load = 1, start = 0.001, keep_fds = "all",
    })
    local list = {}
    for i = 1, 6 do
      list[i] = pool:submit(i)
    end
    step_until(function() return pool:stats().busy == 3 end, "three")
    for _ = 1, 5 do
      fork_map.engine():step(0.002)
    end
    assert.equal(3, pool:stats().workers)
    valve.open(6)
    for i = 1, 6 do
      assert.equal(i, list[i]:await())
    end
  end)

  it("stay as many as they are while one has room for all calls", function()
    local pool <close> = fork_map.pool(echo, { max = 3, start = 0 })
    for i = 1, 50 do
      assert.equal(i, pool:call(i))
    end
    assert.equal(1, pool:stats().workers)
  end)

  it("are ended when they have had nothing to do, down to min", function()
    local pool <close> = fork_map.pool(echo, { min = 1, max = 3, start = 0, stop = 0.01 })
    pool:map(200)
    step_until(function() return pool:stats().workers == 1 end, "one")
    assert.is_true(pool:stats().died == 0)
    assert.equal(1, pool:call(1))
  end)

  it("share what one of them has not begun", function()
    local valve <close> = new_valve()
    local pool <close> = fork_map.pool(function(x)
      return x and valve.wait(x) or sys.getpid()
    end, { min = 2, max = 2, load = 8, keep_fds = "all" })
    step_until(function() return pool:stats().idle == 2 end, "ready")
    local slow = pool:submit(1)
    local list = {}
    for i = 1, 15 do
      list[i] = pool:submit(false)
    end
    for i = 1, 15 do
      assert.is_truthy(list[i]:await())
    end
    assert.equal("running", slow:status())
    valve.open()
    assert.equal(1, slow:await())
  end)

  it("are as many as resize says", function()
    local pool <close> = fork_map.pool(echo, { min = 1, max = 1 })
    pool:resize(3, 4)
    assert.equal(4, pool.workers)
    step_until(function() return pool:stats().idle == 3 end, "three")
    pool:resize(0, 1)
    step_until(function() return pool:stats().workers == 1 end, "one")
    assert.equal(5, pool:call(5))
  end)
end)

describe("the queue of a pool", function()
  process.guard(before_each, after_each, 5)

  it("has whoever submits more wait for room", function()
    local pool <close> = fork_map.pool(echo, { max = 1, load = 1, max_queue = 3 })
    local list, most = {}, 0
    for i = 1, 50 do
      list[i] = pool:submit(i)
      most = math.max(most, pool:stats().queued)
    end
    assert.equal(3, most)
    for i = 1, 50 do
      assert.equal(i, list[i]:await())
    end
  end)

  it("suspends tasks that submit more", function()
    local pool <close> = fork_map.pool(echo, { max = 1, load = 1, max_queue = 2 })
    local sum = 0
    fork_map.run(function()
      for i = 1, 10 do
        fork_map.task(function()
          local value = pool:call(i)
          sum = sum + value
        end)
      end
    end)
    assert.equal(55, sum)
  end)

  it("is an error of kind limit where nothing can wait", function()
    local valve <close> = new_valve()
    local pool <close> = fork_map.pool(valve.wait, {
      max = 1, load = 1, max_queue = 1, keep_fds = "all",
    })
    local running = pool:submit(1)
    step_until(function() return running:status() == "running" end, "running")
    local waiting = pool:submit(2)
    local err
    local other = fork_map.spawn(echo):on_settle(function()
      local ok
      ok, err = pcall(pool.submit, pool, 3)
      assert(not ok)
    end)
    other:await()
    step_until(function() return err ~= nil end, "callback")
    assert.equal("limit", err.kind)
    assert.equal("queue", err.limit)
    valve.open(2)
    assert.same({ 1, 2 }, { running:await(), waiting:await() })
  end)
end)

describe("pool:close()", function()
  process.guard(before_each, after_each, 5)

  it("lets all calls come to their end, and takes no more", function()
    local pool = fork_map.pool(echo, { max = 2 })
    local list = {}
    for i = 1, 100 do
      list[i] = pool:submit(i)
    end
    pool:close()
    for i = 1, 100 do
      assert.same({ true, i }, { list[i]:poll() })
    end
    assert.equal(0, pool:stats().workers)
    assert.same({}, process.children())
    local err = process.failure(pool.submit, pool, 1)
    assert.equal("closed", err.kind)
    pool:close()
  end)

  it("cancels them with drain = false", function()
    local pool = fork_map.pool(function()
      while true do end
    end, { max = 2, start = 0, load = 1, grace = 0.01 })
    local list = {}
    for i = 1, 6 do
      list[i] = pool:submit(i)
    end
    step_until(function() return pool:stats().busy == 2 end, "busy")
    pool:close { drain = false }
    for i = 1, 6 do
      assert.equal("cancelled", list[i]:status())
    end
    assert.same({}, process.children())
  end)

  it("comes with the end of a block, and cancels when that is left by an error", function()
    local f
    do
      local pool <close> = fork_map.pool(echo)
      f = pool:submit(1)
    end
    assert.same({ true, 1 }, { f:poll() })
    assert.is_false((pcall(function()
      local pool <close> = fork_map.pool(function() while true do end end, { grace = 0 })
      f = pool:submit(1)
      step_until(function() return f:status() == "running" end, "running")
      error "out"
    end)))
    assert.equal("cancelled", f:status())
    assert.same({}, process.children())
  end)

  it("comes with the collection of the pool, and cancels", function()
    local f
    do
      local pool = fork_map.pool(function() while true do end end, { grace = 0 })
      f = pool:submit(1)
      step_until(function() return f:status() == "running" end, "running")
    end
    collectgarbage()
    collectgarbage()
    assert.is_true(f:wait(10))
    assert.equal("cancelled", f:status())
    step_until(function() return #process.children() == 0 end, "gone")
  end)

  it("comes with that of its engine: calls have kind closed", function()
    local engine = fork_map.new()
    local pool = engine:pool(function() while true do end end, { grace = 0 })
    local f, g, h = pool:submit(1), pool:submit(2), pool:submit(3)
    engine:step(0.05)
    engine:close()
    for _, call in ipairs { f, g, h } do
      local _, err = call:poll()
      assert.equal("closed", err.kind)
    end
    assert.equal("closed", process.failure(pool.submit, pool, 1).kind)
    pool:close()
  end)

  it("waits for nothing in a callback", function()
    local pool <close> = fork_map.pool(echo)
    local text
    pool:submit(1):on_settle(function()
      local ok
      ok, text = pcall(pool.close, pool)
      assert(not ok)
    end):await()
    step_until(function() return text ~= nil end, "callback")
    assert.matches("cannot wait inside a callback", text)
  end)
end)

describe("pool:stats()", function()
  process.guard(before_each, after_each, 5)

  it("tells how long calls have waited and run", function()
    local pool <close> = fork_map.pool(function()
      sys.sleep(0.002)
    end, { max = 1 })
    pool:map(10)
    local stats = pool:stats()
    assert.equal(10, stats.done)
    for _, name in ipairs { "wait", "run" } do
      local times = stats[name]
      assert.is_true(times.p50 <= times.p90 and times.p90 <= times.p99)
      assert.is_true(times.p99 <= times.max)
    end
    assert.is_true(stats.run.p50 >= 0.002)
  end)

  it("keeps its memory however many calls there were", function()
    local histograms = require "fork_map.histogram"
    local h = histograms.new()
    for i = 1, 1000 do
      h:add(i * 1e-3)
    end
    local times = h:summary()
    assert.is_true(math.abs(times.p50 - 0.5) < 0.06)
    assert.is_true(math.abs(times.p99 - 0.99) < 0.1)
    assert.equal(1, times.max)
    h:add(1e12)
    h:add(-1)
    assert.equal(1e12, h:summary().max)
    local n = 0
    for _ in pairs(h) do
      n = n + 1
    end
    assert.is_true(n < 410)
  end)

  it("is of use with gates too", function()
    local gate <close> = futures.gate()
    local pool <close> = fork_map.pool(gate.wait, { max = 1, load = 1, keep_fds = "all" })
    local f, g = pool:submit(1), pool:submit(2)
    step_until(function() return f:status() == "running" end, "running")
    local stats = pool:stats()
    assert.same({ 1, 1, 1, 0 }, { stats.running, stats.queued, stats.busy, stats.idle })
    gate.open()
    assert.same({ 1, 2 }, { f:await(), g:await() })
  end)
end)
