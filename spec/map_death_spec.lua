-- SPDX-License-Identifier: MIT
-- A dead worker costs exactly one item.  Items note in a file that they have
-- been run, so that it shows when something runs twice or not at all.

local fork_map = require "fork_map"
local process = require "support.process"
local sys = require "specs_core"

local is_asan = (os.getenv("FORK_MAP_PRELOAD") or "") ~= ""

-- Rounds of each way to die: a thousand in all, and as many with a nemesis.
local SCALE = os.getenv("FORK_MAP_FULL") == "1" and 10 or is_asan and 0.05 or 1

local N = 24

local function rounds(n)
  return math.max(1, math.floor(n * SCALE))
end

describe("a worker that dies", function()
  process.guard(before_each, after_each, 4)

  local name, file

  setup(function()
    name = os.tmpname()
    file = assert(io.open(name, "a"))
    file:setvbuf("no")
  end)
  teardown(function()
    file:close()
    os.remove(name)
  end)

  local function note(i)
    file:write(i .. "\n")
  end

  -- How often each item ran since the last time.
  local function take_runs()
    local runs = {}
    for line in io.lines(name) do
      local i = tonumber(line)
      runs[i] = (runs[i] or 0) + 1
    end
    assert(io.open(name, "w")):close()
    return runs
  end

  local function random_chunk()
    local chunks = { "auto", 1, 2, 5, N, { min = 3 } }
    return chunks[math.random(#chunks)]
  end

  local function value_of(i)
    return i % 2 == 0 and i or { i }
  end

  -- Every item but `lost` has its value and ran once; but `late` are those that
  -- a busy machine kept longer than their time.
  local function check_others(results, lost, runs, late)
    for i = 1, N do
      if i ~= lost and not (late and late[i]) then
        assert.same(value_of(i), results[i])
        assert.equal(1, runs[i])
      end
    end
    assert.equal(N, results.n)
  end

  local WAYS = {
    {
      "SIGKILL", 300,
      die = function() sys.kill(sys.getpid(), 9) end,
      tell = function(err) return err.kind == "signal" and err.signame == "SIGKILL" end,
    },
    {
      "a crash #not_asan", 200,
      die = function() sys.segv() end,
      tell = function(err) return err.kind == "signal" and err.signame == "SIGSEGV" end,
    },
    {
      "os.exit", 300,
      die = function() os.exit(5) end,
      tell = function(err) return err.kind == "exit" and err.exit_code == 5 end,
    },
    {
      "its memory limit #not_asan", 170,
      opts = { limits = { memory = "8M" } },
      die = function() return ("x"):rep(64 << 20) end,
      tell = function(err) return err.kind == "limit" and err.limit == "memory" end,
    },
    {
      "a timeout", 20,
      opts = { timeout = 0.06, grace = 0 },
      is_timed = true,
      die = function() while true do end end,
      tell = function(err) return err.kind == "timeout" end,
    },
  }

  local function options(way, more)
    local isolations = { "worker", "worker", "worker", "chunk", "item" }
    local opts = {
      on_error = "collect", workers = math.random(1, 4), chunk = random_chunk(),
      isolate = isolations[math.random(#isolations)],
    }
    for _, source in ipairs { way.opts or {}, more or {} } do
      for key, value in pairs(source) do
        opts[key] = value
      end
    end
    return opts
  end

  for _, way in ipairs(WAYS) do
    local title, n = way[1], way[2]

    it("costs the item it was in and no other, by " .. title, function()
      for _ = 1, rounds(n) do
        local lost = math.random(N)
        local results, errors = fork_map.map(N, function(i)
          note(i)
          if i == lost then
            way.die()
          end
          return value_of(i)
        end, options(way))
        local runs = take_runs()
        check_others(results, lost, runs, way.is_timed and errors)
        assert.is_nil(results[lost])
        assert.equal(1, runs[lost])
        for index, err in pairs(errors) do
          assert.equal(index, err.index)
          assert.is_true(way.tell(err), err.kind)
          assert.is_true(index == lost or way.is_timed, index)
        end
      end
    end)

    it("has that item run again, and no other, by " .. title, function()
      for _ = 1, rounds(n / 10) do
        local lost = math.random(N)
        local results, errors = fork_map.map(N, function(i)
          note(i)
          if i == lost and fork_map.worker().attempt < 3 then
            way.die()
          end
          return value_of(i)
        end, options(way, { retries = 2, retry_on = { "signal", "exit", "limit", "timeout" } }))
        local runs = take_runs()
        if not way.is_timed then
          check_others(results, lost, runs)
          assert.is_nil(errors)
        end
        assert.same(value_of(lost), results[lost])
        assert.equal(3, runs[lost])
      end
    end)
  end

  -- A process that is none of ours kills the worker that item 1 is in, a while later.
  local function start_nemesis(delay)
    local victim = sys.getpid()
    if sys.fork_once() == 0 then
      sys.sleep(delay)
      sys.kill(victim, 9)
      sys.quick_exit(0)
    end
  end

  it("costs one item at most, whenever it dies", function()
    local n_lost = 0
    for round = 1, rounds(300) do
      local delay = math.random() * 0.0015
      local results, errors = fork_map.map(N, function(i)
        if i == 1 then
          start_nemesis(delay)
        end
        note(i)
        while i == 1 and round == 1 do end -- at least once it comes in time
        local x = 0
        for k = 1, 3000 do x = x + k end
        return value_of(i)
      end, options({}))
      local runs = take_runs()
      local lost = errors and next(errors)
      check_others(results, lost, runs)
      if lost then
        assert.equal("SIGKILL", errors[lost].signame)
        assert.equal(lost, errors[lost].index)
        assert.is_nil(next(errors, lost))
        -- It may have died before it noted anything.
        assert.is_true((runs[lost] or 0) <= 1)
        n_lost = n_lost + 1
      end
    end
    assert.is_true(n_lost > 0)
  end)

  it("ends a map that does not collect, with what there is, and no later item begins", function()
    for _ = 1, rounds(20) do
      local err = process.failure(fork_map.map, 10000, function(i)
        if i == 5 then
          os.exit(3)
        end
        sys.sleep(0.001)
        return i
      end, { workers = 2, chunk = 1 })
      assert.equal("exit", err.kind)
      assert.equal(5, err.index)
      local partial, n = err.partial, 0
      for i = 1, 10000 do
        n = n + ((partial[i] == nil or partial[i] == i) and 1 or 0)
      end
      assert.equal(10000, n)
      assert.is_nil(err.partial[5])
      assert.is_nil(err.partial[10000])
    end
  end)
end)
