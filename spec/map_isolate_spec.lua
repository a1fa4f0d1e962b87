-- SPDX-License-Identifier: MIT
-- A process for each item: a child of the worker, with all that a call has.
local fork_map = require "fork_map"
local process = require "support.process"
local sys = require "specs_core"

local exit = os.exit

local function map(n, fn, opts)
  opts = opts or {}
  opts.workers = opts.workers or 2
  opts.isolate = "item"
  opts.on_error = "collect"
  return fork_map.map(n, fn, opts)
end

describe('isolate = "item"', function()
  process.guard(before_each, after_each, 2)

  it("gives every item a process that no other has", function()
    local pids = map(20, function() return fork_map.worker().pid end)
    local seen = {}
    for i = 1, 20 do
      assert.is_nil(seen[pids[i]])
      seen[pids[i]] = true
    end
  end)

  it("shows an item nothing of what another did", function()
    local count = 0
    assert.same({ 1, 1, 1, 1, n = 4 }, (map(4, function()
      count = count + 1
      return count
    end)))
  end)

  it("shows every item what init did in its worker", function()
    local base = 0
    assert.same({ 8, 8, 8, n = 3 }, (map(3, function() return base + 1 end, {
      init = function() base = 7 end,
    })))
  end)

  it("tells how an item ended as a call does", function()
    local _, errors = map(6, function(i)
      if i == 1 then
        error({ code = i })
      elseif i == 2 then
        exit(4)
      elseif i == 3 then
        sys.kill(sys.getpid(), 11)
      elseif i == 4 then
        return { deep = { print } }
      elseif i == 5 then
        error("text", 0)
      end
      return i
    end)
    assert.same({ "error", 1 }, { errors[1].kind, errors[1].value.code })
    assert.matches("map_isolate_spec.lua:%d+: in", errors[1].traceback)
    assert.same({ "exit", 4 }, { errors[2].kind, errors[2].exit_code })
    assert.same({ "signal", 11, "SIGSEGV" },
      { errors[3].kind, errors[3].signal, errors[3].signame })
    assert.same({ "encode", "result.deep[1]" }, { errors[4].kind, errors[4].path })
    assert.same({ "error", "text" }, { errors[5].kind, errors[5].value })
    assert.is_nil(errors[6])
    for i = 1, 5 do
      assert.equal(i, errors[i].index)
      assert.is_true(errors[i].usage.wall > 0)
    end
  end)

  it("ends an item that takes too long, and tells where it was", function()
    local results, errors = map(3, function(i)
      while i == 2 do end
      return i
    end, { timeout = 0.1 })
    assert.same({ 1, nil, 3, n = 3 }, results)
    assert.equal("timeout", errors[2].kind)
    assert.matches("map_isolate_spec.lua:%d+", errors[2].last.line)
  end)

  it("counts the limit of processor time for each item", function()
    local _, errors = map(4, function(i)
      if i == 2 then
        while true do end
      end
      local began = os.clock()
      while os.clock() - began < 0.08 do end
    end, { limits = { cpu = 0.2 } })
    assert.equal("limit", errors[2].kind)
    assert.equal("cpu", errors[2].limit)
    assert.same({ [2] = errors[2] }, errors)
  end)

  it("tries again what may be tried again, and only that", function()
    local runs = os.tmpname()
    local results, errors = map(4, function(i)
      local file <close> = io.open(runs, "a")
      file:write(i, " ")
      if i == 3 and fork_map.worker().attempt < 3 then
        exit(1)
      end
      return fork_map.worker().attempt
    end, { retries = 2, workers = 1 })
    local text = process.read_file(runs)
    os.remove(runs)
    assert.same({ 1, 1, 3, 1, n = 4 }, results)
    assert.is_nil(errors)
    assert.equal(3, select(2, text:gsub("3 ", "")))
    assert.equal(6, select(2, text:gsub("%d", "")))
  end)

  it("gives the numbers that an item with this seed has anywhere", function()
    local function draw() return math.random(1 << 40) end
    local inline = fork_map.map(5, draw, { workers = 0, seed = 5 })
    assert.same(inline, (map(5, draw, { seed = 5 })))
  end)

  it("runs at_fork hooks around the fork of an item", function()
    -- In a child: hooks stay for ever.
    assert.same({ 20002, 20103, 20204, n = 3 }, fork_map(function()
      local n = 0
      fork_map.at_fork {
        before = function() n = n + 1 end,
        parent = function() n = n + 100 end,
        child = function() n = n + 10000 end,
      }
      return fork_map.map(3, function() return n end, {
        isolate = "item", workers = 1, nested = "fork",
      })
    end))
  end)

  it("carries results of any size", function()
    local results = map(3, function(i) return ("x"):rep(3000000 + i) end)
    for i = 1, 3 do
      assert.equal(3000000 + i, #results[i])
    end
  end)

  it("ends what items left running in their groups", function()
    local pids = map(4, function()
      local pipe = io.popen("sleep 60 & echo $!")
      return pipe:read("n")
    end)
    for i = 1, 4 do
      process.eventually(function() return process.is_gone(pids[i]) end, "a sleep has ended")
    end
  end)
end)
