-- SPDX-License-Identifier: MIT
local fork_map = require "fork_map"
local process = require "support.process"
local sys = require "specs_core"

local failure = process.failure

local function echo(item)
  return item
end

describe("fork_map.map in workers", function()
  process.guard(before_each, after_each, 8)

  it("starts no more of them than there are items, and as many as are asked for", function()
    -- Every item waits until so many processes work on one.
    local function count_workers(n, workers, expected)
      local name = os.tmpname()
      local seen, count = {}, 0
      for _, pid in ipairs(fork_map.map(n, function(i)
        local file <close> = io.open(name, "a")
        file:write(i <= expected and "." or "")
        file:flush()
        process.eventually(function()
          return #process.read_file(name) >= expected
        end, "workers for all items")
        return sys.getpid()
      end, { workers = workers, chunk = 1 })) do
        count = count + (seen[pid] and 0 or 1)
        seen[pid] = true
      end
      os.remove(name)
      return count
    end
    assert.equal(1, count_workers(10, 1, 1))
    assert.equal(2, count_workers(2, 8, 2))
    assert.equal(3, count_workers(30, 3, 3))
  end)

  it("collects exits and signals as errors of their items", function()
    local results, errors = fork_map.map(8, function(i)
      if i == 2 then
        os.exit(3)
      elseif i == 4 then
        os.exit(0)
      elseif i == 6 then
        sys.kill(sys.getpid(), 9)
      end
      return i
    end, { workers = 2, on_error = "collect" })
    assert.same({ 1, nil, 3, nil, 5, nil, 7, 8, n = 8 }, results)
    assert.same({ "exit", 3 }, { errors[2].kind, errors[2].exit_code })
    assert.same({ "no_result", 4 }, { errors[4].kind, errors[4].index })
    assert.same({ "signal", "SIGKILL" }, { errors[6].kind, errors[6].signame })
  end)

  it("ends the first item of a worker in time, neither earlier nor much later", function()
    for _, opts in ipairs { { workers = 1 }, { workers = 2 }, { workers = 1, chunk = 4 } } do
      opts.timeout, opts.grace, opts.on_error = 0.1, 0, "collect"
      opts.retries, opts.retry_on = 1, { "timeout" }
      local took, ok, results, errors = process.timed(fork_map.map, 4, function(i)
        while i == 1 do end
        return i
      end, opts)
      assert.is_true(ok)
      assert.same({ nil, 2, 3, 4, n = 4 }, results)
      assert.equal("timeout", errors[1].kind)
      assert.equal(2, errors[1].attempt)
      assert.is_true(took > 0.19 and took < 0.7, took)
    end
  end)

  it("limits the memory of an item, and the bytes of its result #not_asan", function()
    local view = fork_map.with { workers = 2, on_error = "collect", limits = { memory = "16M" } }
    local results, errors = view:map(4, function(i)
      return i == 2 and #("x"):rep(64 << 20) or i
    end)
    assert.same({ 1, nil, 3, 4, n = 4 }, results)
    assert.same({ "limit", "memory" }, { errors[2].kind, errors[2].limit })
    results, errors = fork_map.map(4, function(i) return i == 2 and ("x"):rep(5000) or i end, {
      workers = 2, on_error = "collect", limits = { result = 4096 },
    })
    assert.same({ 1, nil, 3, 4, n = 4 }, results)
    assert.same({ "limit", "result" }, { errors[2].kind, errors[2].limit })
  end)

  it("hands what items print to a function, line by line", function()
    local lines = {}
    fork_map.map(3, function(i) print("item " .. i) end, {
      workers = 2, output = function(line, stream) lines[#lines + 1] = stream .. " " .. line end,
    })
    table.sort(lines)
    assert.same({ "stdout item 1", "stdout item 2", "stdout item 3" }, lines)
  end)

  it("closes descriptors that are not listed, and sets the priority", function()
    local file <close> = assert(io.tmpfile())
    local function write()
      return (file:write("x") and file:flush()) and true or false
    end
    local view = fork_map.with { workers = 1 }
    assert.is_true(view:map(1, write)[1])
    assert.is_false(view:map(1, write, { keep_fds = {} })[1])
    local function priority()
      local stat = process.read_file("/proc/self/stat"):match("^.*%) (.*)")
      local fields = {}
      for field in stat:gmatch("%S+") do
        fields[#fields + 1] = field
      end
      return tonumber(fields[17])
    end
    assert.equal(priority() + 3, view:map(1, priority, { nice = 3 })[1])
  end)

  it("replaces a worker after max_tasks items and above max_rss", function()
    local function count(opts)
      local pids, n = {}, 0
      opts.workers = 1
      for _, pid in ipairs(fork_map.map(12, sys.getpid, opts)) do
        n = n + (pids[pid] and 0 or 1)
        pids[pid] = true
      end
      return n
    end
    assert.equal(1, count {})
    assert.equal(3, count { max_tasks = 4 })
    assert.equal(12, count { max_rss = 1, chunk = 1 })
    assert.equal(4, count { isolate = "chunk", chunk = 3 })
    assert.equal(12, count { isolate = "item" })
  end)

  it("keeps chunks of a fixed number and within a range", function()
    for _, chunk in ipairs { 1, 3, 1000, { min = 2, max = 5 }, { min = 7 }, { max = 2 }, "auto" } do
      local results = fork_map.map(100, echo, { workers = 2, chunk = chunk })
      for i = 1, 100 do
        assert.equal(i, results[i])
      end
    end
  end)

  it("ends a crash loop with an error", function()
    local err = failure(fork_map.map, 100, echo, {
      workers = 2, on_error = "collect", init = function() os.exit(7) end,
    })
    assert.is_true(err.kind == "exit" or err.kind == "spawn", err.kind)
  end)

  it("ends at once when the engine is closed by a handler, and after it", function()
    local engine = fork_map.new {}
    local err = failure(engine.map, engine, 100, function(i)
      fork_map.emit(i)
      sys.sleep(0.01)
    end, { workers = 2, on_event = function() engine:close() end })
    assert.equal("closed", err.kind)
    assert.equal("closed", failure(engine.map, engine, 3, echo, { workers = 2 }).kind)
  end)

  it("tells an item that it is asked to end, and begins no other then", function()
    local name = os.tmpname()
    local took, _, err = process.timed(fork_map.map, 40, function(i)
      while i == 1 and not fork_map.cancelled() do
        local file <close> = io.open(name, "w")
        file:write("waits")
      end
      if i ~= 1 then
        process.eventually(function() return process.read_file(name) == "waits" end, "the other")
        error("no", 0)
      end
      local file <close> = io.open(name, "w")
      file:write("was asked in item ", i)
    end, { workers = 2, chunk = { max = 20 }, grace = 20 })
    assert.equal("no", err.message)
    assert.equal("was asked in item 1", process.read_file(name))
    assert.is_true(took < 10)
    assert.is_false(fork_map.cancelled())
    os.remove(name)
  end)

  it("is interrupted by a hook that raises, as that of Ctrl-C, and leaves nothing", function()
    local began = sys.now()
    debug.sethook(function()
      if sys.now() - began > 0.1 then
        debug.sethook()
        error("interrupted!", 0)
      end
    end, "", 1)
    local ok, err = pcall(fork_map.map, 4, function() sys.sleep(60) end, {
      workers = 2, grace = 0, progress = function() end,
    })
    debug.sethook()
    assert.same({ false, "interrupted!" }, { ok, err })
    assert.is_true(sys.now() - began < 5)
  end)

  it("is made by several at once, one within the handler of another", function()
    local inner
    fork_map.map(3, fork_map.emit, {
      workers = 2,
      on_event = function(i)
        inner = fork_map.map(i, function(k) return k * i end, { workers = 2 })
      end,
    })
    assert.equal(inner[1] * inner[1], inner[inner.n])
  end)
end)

describe("a map inside of a map", function()
  process.guard(before_each, after_each, 8)

  -- The processes that items of items ran in, and all that were below this one.
  local function census(opts, inner_opts)
    local rows = fork_map.map(4, function()
      local mine = fork_map.map(4, sys.getpid, inner_opts)
      mine.n = nil
      return { mine, sys.getpid() }
    end, opts)
    local inner, outer, n_inner, n_outer = {}, {}, 0, 0
    for _, row in ipairs(rows) do
      n_outer = n_outer + (outer[row[2]] and 0 or 1)
      outer[row[2]] = true
      for _, pid in ipairs(row[1]) do
        n_inner = n_inner + (inner[pid] and 0 or 1)
        inner[pid] = true
      end
    end
    return inner, outer, n_inner, n_outer
  end

  it("runs in the worker's process", function()
    local inner, outer, n_inner, n_outer = census({ workers = 2 }, { workers = 8 })
    assert.same(outer, inner)
    assert.equal(n_outer, n_inner)
    assert.is_true(n_outer <= 2)
  end)

  it("forks when it is told to, and when its options need a process", function()
    for _, opts in ipairs { { nested = "fork", workers = 2 }, { nice = 1, workers = 2 } } do
      local inner, outer = census({ workers = 1 }, opts)
      for pid in pairs(inner) do
        assert.is_nil(outer[pid])
      end
    end
  end)

  it("knows its own items, and has the values and errors of any map", function()
    local results = fork_map.map(2, function(i)
      local inner, errors = fork_map.map(3, function(k)
        if k == 2 then
          error("no", 0)
        end
        return fork_map.worker().index * 10 + i
      end, { on_error = "collect" })
      return { inner[1], inner[3], errors[2].index, fork_map.worker().index }
    end, { workers = 2 })
    assert.same({ { 11, 31, 2, 1 }, { 12, 32, 2, 2 }, n = 2 }, results)
  end)

  it("keeps to the limits of the one around it, not those within", function()
    local _, errors = fork_map.map(2, function(i)
      return fork_map.map(2, function() while i == 1 do end end, { timeout = 60, workers = 0 })
    end, { workers = 0, timeout = 0.1, on_error = "collect" })
    assert.equal("timeout", errors[1].kind)
    assert.is_nil(errors[2])
  end)

  it("ends alone when one of its items says stop", function()
    local results = fork_map.map(2, function()
      return fork_map.map(3, function(k) fork_map.stop(k) end).stopped
    end, { workers = 2 })
    assert.same({ 1, 1, n = 2 }, results)
  end)

  it("has workers of its own in a call, which is no worker", function()
    local pids = fork_map(function()
      local results = fork_map.map(4, sys.getpid, { workers = 2 })
      return { sys.getpid(), results[1] }
    end)
    assert.not_equal(pids[1], pids[2])
  end)

  it("has none in a call below a worker", function()
    local pids = fork_map.map(1, function()
      return fork_map(function()
        return { sys.getpid(), fork_map.map(4, sys.getpid, { workers = 2 })[1] }
      end)
    end, { workers = 1 })
    assert.equal(pids[1][1], pids[1][2])
  end)

  it("is told apart from a call in it", function()
    local seen = fork_map.map(1, function()
      return fork_map(function()
        return { fork_map.worker().index or "none", pcall(fork_map.stop, 1) }
      end)
    end, { workers = 0 })
    assert.equal("none", seen[1][1])
    assert.is_false(seen[1][2])
    assert.matches("not in an item of a map", seen[1][3])
  end)
end)

describe("fork_map.stop and fork_map.emit", function()
  it("are refused and dropped outside of a map", function()
    local ok, message = pcall(fork_map.stop, 1)
    assert.is_false(ok)
    assert.matches("not in an item of a map", message)
    assert.is_nil(fork_map.emit(1))
  end)
end)
