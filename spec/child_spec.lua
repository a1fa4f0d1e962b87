-- SPDX-License-Identifier: MIT
-- What a child costs its host in memory, and its flight recorder.
local fork_map = require "fork_map"
local process = require "support.process"
local sys = require "specs_core"

-- "child_spec.lua:LINE" of `fn`'s line `offset` after its first.
local function line_in(fn, offset)
  return ("child_spec.lua:%d"):format(debug.getinfo(fn, "S").linedefined + offset)
end

describe("the collector of a child", function()
  process.guard(before_each, after_each)

  describe("in a host of 200 MB", function()
    local big

    setup(function()
      big = {}
      for i = 1, 3000000 do
        big[i] = { i }
      end
      collectgarbage()
    end)

    teardown(function()
      big = nil
      collectgarbage()
    end)

    it("copies less than 16 MB when the closure only reads", function()
      assert.is_true(collectgarbage("count") > 190 * 1024)
      local sum, dirty = fork_map(function()
        local before = process.smaps("Private_Dirty")
        local total = 0
        for i = 1, #big do
          total = total + big[i][1]
        end
        return total, process.smaps("Private_Dirty") - before
      end)
      assert.equal(3000000 * 3000001 // 2, sum)
      assert.is_true(dirty < 16 << 20, ("%d bytes were copied"):format(dirty))
    end)

    it("lets the closure make garbage without bound #slow", function()
      local peak = fork_map(function()
        for i = 1, 1500 do
          local _ = ("x"):rep(1 << 20) .. i
        end
        return process.smaps("Private_Dirty")
      end)
      -- Of 3,000 MB: the budget of 64, a copy of the heap, and as much as the
      -- collector's pace lets a program make while it goes through that.
      assert.is_true(peak < 900 << 20, ("%d bytes were kept"):format(peak))
    end)
  end)

  -- The sanitizer's allocator keeps what is freed.
  it("runs again when a closure with a small host makes garbage #slow #not_asan", function()
    local peak = fork_map(function()
      for i = 1, 200 do
        local _ = ("x"):rep(1 << 20) .. i
      end
      return process.smaps("Private_Dirty")
    end)
    assert.is_true(peak < 100 << 20, ("%d bytes were kept"):format(peak))
  end)

  it("finalizes what the closure leaves as garbage", function()
    assert.is_true(fork_map(function()
      local finalized = false
      setmetatable({}, { __gc = function() finalized = true end })
      collectgarbage()
      collectgarbage()
      return finalized
    end))
  end)
end)

describe("the flight recorder", function()
  process.guard(before_each, after_each)

  -- Long enough for some time on a processor, whatever else the machine does.
  local short = fork_map.with { timeout = 0.3, grace = 0 }

  local function last_line(fn)
    local err = process.failure(short, fn)
    assert.equal("timeout", err.kind)
    return (err.last.line:gsub("^.*/", ""))
  end

  it("tells the line of a loop", function()
    local function loop()
      local i = 0
      while true do
        i = i + 1 end
    end
    local line = last_line(loop)
    assert.is_true(line == line_in(loop, 2) or line == line_in(loop, 3), line)
  end)

  it("tells the line inside a coroutine that is resumed", function()
    local function loop()
      while true do end
    end
    assert.equal(line_in(loop, 1), last_line(function()
      coroutine.resume(coroutine.create(loop))
    end))
  end)

  it("tells the line inside a coroutine that is wrapped, below another", function()
    local function loop()
      while true do end
    end
    assert.equal(line_in(loop, 1), last_line(function()
      coroutine.wrap(function()
        coroutine.wrap(loop)()
      end)()
    end))
  end)

  it("tells the caller's line when time goes by in a C function that comes back", function()
    local function loop()
      local text = ("x"):rep(100)
      while true do
        text:find(".-.-.-y") end
    end
    local line = last_line(loop)
    assert.is_true(line == line_in(loop, 2) or line == line_in(loop, 3), line)
  end)

  it("tells where the function begins when nothing later was seen", function()
    local function sleep()
      sys.sleep(20)
    end
    assert.equal(line_in(sleep, 0), last_line(sleep))
  end)

  it("leaves hooks of the closure as they were", function()
    local mask, count, calls, same = fork_map(function()
      local n = 0
      local function hook() n = n + 1 end
      debug.sethook(hook, "c")
      local deadline = os.clock() + 0.08
      while os.clock() < deadline do end
      local now, now_mask, now_count = debug.gethook()
      return now_mask, now_count, n, now == hook
    end)
    assert.same({ "c", 0, true }, { mask, count, same })
    assert.is_true(calls > 100)
  end)

  it("lets a count hook of the closure count", function()
    assert.is_true(fork_map(function()
      local reached
      debug.sethook(function() reached = true end, "", 20000000)
      local deadline = os.clock() + 5
      while not reached and os.clock() < deadline do
        for _ = 1, 100000 do end
      end
      debug.sethook()
      return reached
    end))
  end)

  it("keeps coroutines as they are for the closure", function()
    assert.same({
      true, 1, 2, "yielded", "dead", false, "cannot resume dead coroutine",
      false, "boom", "closed", false,
    }, { fork_map(function()
      local co = coroutine.create(function(a)
        local b = coroutine.yield(a, a + 1)
        return b
      end)
      local ok, a, b = coroutine.resume(co, 1)
      local _, c = coroutine.resume(co, "yielded")
      local dead, why = coroutine.resume(co)
      local closed
      local raising = coroutine.wrap(function()
        local _ <close> = setmetatable({}, { __close = function() closed = "closed" end })
        error("boom", 0)
      end)
      local raised, message = pcall(raising)
      return ok, a, b, c, coroutine.status(co), dead, why, raised,
        message:match("boom"), closed, (pcall(coroutine.resume, 1))
    end) })
  end)
end)
