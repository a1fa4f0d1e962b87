-- SPDX-License-Identifier: MIT
local fork_map = require "fork_map"
local process = require "support.process"
local sys = require "specs_core"

local failure = process.failure

describe("fork_map.Error of kind limit", function()
  process.guard(before_each, after_each)

  local function limited(limits)
    return fork_map.with { limits = limits, timeout = 20, grace = 0 }
  end

  it("is the memory limit when the closure needs more", function()
    local err = failure(limited { memory = "8M" }, function()
      local kept
      for i = 1, math.huge do
        kept = { kept, ("x"):rep(1000) .. i }
      end
    end)
    assert.equal("limit", err.kind)
    assert.equal("memory", err.limit)
  end)

  it("raises a clean error first, which the closure can handle", function()
    local ok, message, sum = limited { memory = "8M" }(function()
      local big_ok, big_message = pcall(string.rep, "x", 64 << 20)
      local t = {}
      for i = 1, 1000 do
        t[i] = i
      end
      return big_ok, big_message, #t
    end)
    assert.is_false(ok)
    assert.equal("not enough memory", message)
    assert.equal(1000, sum)
  end)

  it("is the memory limit too when the closure raises that error again", function()
    local err = failure(limited { memory = "8M" }, function()
      local _, message = pcall(string.rep, "x", 64 << 20)
      error(message, 0)
    end)
    assert.equal("memory", err.limit)
  end)

  it("counts growth only, not what the host had", function()
    local host = ("x"):rep(32 << 20)
    assert.equal(32 << 20, limited { memory = "8M" }(function() return #host end))
  end)

  -- The sanitizer's allocator keeps what is freed.
  it("lets the closure make garbage without bound #not_asan", function()
    assert.equal(200, limited { memory = "8M" }(function()
      local n = 0
      for i = 1, 200 do
        n = n + (#("x"):rep(1 << 20) - (1 << 20)) + 1
        assert(i)
      end
      return n
    end))
  end)

  it("is the limit of processor time", function()
    local took, _, err = process.timed(limited { cpu = 0.1 }, function()
      while true do end
    end)
    assert.equal("limit", err.kind)
    assert.equal("cpu", err.limit)
    assert.is_true(took < 5)
  end)

  it("is the limit of file size", function()
    local name = os.tmpname()
    local err = failure(limited { file_size = "64K" }, function()
      local file = assert(io.open(name, "w"))
      for _ = 1, 1000 do
        file:write(("x"):rep(1000))
      end
      file:close()
    end)
    assert.equal("limit", err.kind)
    assert.equal("file_size", err.limit)
    assert.is_true(#process.read_file(name) <= 65536)
    os.remove(name)
  end)

  it("is the limit of the result, before its bytes", function()
    local err = failure(limited { result = "1M" }, function()
      return ("x"):rep((1 << 20) + 100)
    end)
    assert.equal("limit", err.kind)
    assert.equal("result", err.limit)
    assert.equal(1 << 19, #limited { result = "1M" }(string.rep, "x", 1 << 19))
  end)

  it("makes calls inside fail when there are too many files", function()
    local opened, message = limited { files = 3 }(function()
      local files = {}
      while true do
        local file, text = io.open("/dev/null")
        if not file then
          return #files, text
        end
        files[#files + 1] = file
      end
    end)
    assert.equal(3, opened)
    assert.matches("Too many open files", message)
  end)

  it("is the limit of the result too, when its values need too much memory", function()
    local small = limited { result = "64K" }:with { codec = "json" }
    local err = failure(small, function()
      local t = {}
      for i = 1, 20000 do
        t[i] = fork_map.array()
      end
      return t
    end)
    assert.equal("limit", err.kind)
    assert.equal("result", err.limit)
  end)

  it("bounds the memory of a raised value too, whose error comes without it", function()
    local function raise(n)
      local t = {}
      for i = 1, n do
        t[i] = fork_map.array()
      end
      error(t)
    end
    local small = limited { result = "64K" }
    assert.equal(100, #failure(small, raise, 100).value)
    local err = failure(small, raise, 20000)
    assert.equal("error", err.kind)
    assert.is_nil(err.value)
  end)

  it("makes calls inside fail when there are more processes than so many", function()
    local function fork_many()
      for n = 0, 9 do
        local pid, name = sys.fork_and_hold()
        if not pid then
          return n, name
        end
      end
    end
    assert.same({ 2, "EAGAIN" }, { fork_map(function()
      -- Root is above such a limit; this user has no other processes.
      sys.setuid(61184)
      return limited { processes = 2 }(fork_many)
    end) })
  end)

  it("makes calls inside fail when there are too many processes, for root too", function()
    local pid, name = limited { processes = 0 }(sys.fork_once)
    assert.is_nil(pid)
    assert.equal("EAGAIN", name)
  end)
end)
