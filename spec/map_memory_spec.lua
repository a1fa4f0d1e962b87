-- SPDX-License-Identifier: MIT
-- What a map holds in the memory of its host: its results, and little else.

local project = require "support.project"

local MIB = 1 << 20

-- Sanitizers have memory of their own.
describe("the memory of a host #not_asan", function()
  local directory

  setup(function()
    directory = project.make_directory()
  end)
  teardown(function()
    project.remove(directory)
  end)

  local PREAMBLE = [[
    package.path, package.cpath = %q, %q
    local fork_map = require "fork_map"
    local function field(name)
      for line in io.lines("/proc/self/status") do
        local kib = line:match("^" .. name .. ":%%s+(%%d+)")
        if kib then return kib * 1024 end
      end
    end
    fork_map.map(10, math.abs, { workers = 2 })
    collectgarbage() collectgarbage()
    local before, heap = field "VmRSS", collectgarbage("count") * 1024
    local results, extra
    local n = %d
  ]]

  local EPILOGUE = [[
    local peak = field "VmHWM" - before
    collectgarbage() collectgarbage()
    print(peak, field "VmRSS" - before, collectgarbage("count") * 1024 - heap, extra)
  ]]

  -- By how much the host grew at most, still is larger, and how much Lua has.
  local function grow(n, program)
    local name = directory .. "/script.lua"
    project.write(name, PREAMBLE:format(package.path, package.cpath, n) .. program .. EPILOGUE)
    local numbers = {}
    for number in project.run(project.lua .. " " .. name):gmatch("%S+") do
      numbers[#numbers + 1] = tonumber(number)
    end
    return table.unpack(numbers)
  end

  local MAP = [[
    results = fork_map.map(n, function(i) return i end, { workers = 2 })
    for i = 1, n do assert(results[i] == i) end
  ]]

  local function check_map(n)
    local peak, left, heap = grow(n, MAP)
    local array = 16 * n -- what Lua needs for it
    assert.is_true(heap < 1.1 * array, heap)
    assert.is_true(left < 1.1 * array + 4 * MIB, left)
    assert.is_true(peak < 1.2 * array + 6 * MIB, peak)
  end

  it("grows by the results of a map of tiny items alone", function()
    check_map(1100000) -- more than a power of two
  end)

  it("grows by the results of ten million tiny items alone #slow", function()
    check_map(10000000)
  end)

  it("does not grow by items that are done for their effects", function()
    local peak, _, heap = grow(1000000, [[
      fork_map.each(n, function(i) return i end, { workers = 2 })
    ]])
    assert.is_true(heap < MIB / 4, heap)
    assert.is_true(peak < 6 * MIB, peak)
  end)

  it("does not grow by items that are found or folded", function()
    local _, _, heap = grow(300000, [[
      assert(fork_map.find(n, function(i) return i == n end, { workers = 2, which = "first" }) == n)
      local function add(a, b) return a + b end
      assert(fork_map.reduce(n, add, add, 0, { workers = 2 }) == n * (n + 1) // 2)
    ]])
    assert.is_true(heap < MIB, heap)
  end)

  it("holds no more than half as much again as large results while they come", function()
    local peak = grow(24, [[
      results = fork_map.map(n, function(i) return ("x"):rep((4 << 20) + i) end, { workers = 2 })
      for i = 1, n do assert(#results[i] == (4 << 20) + i) end
    ]])
    assert.is_true(peak < 1.5 * 24 * 4 * MIB, peak)
  end)

  it("holds no more than half as much again as large tables while they come", function()
    local peak, _, heap = grow(20, [[
      results = fork_map.map(n, function(i)
        local t = {}
        for k = 1, 100000 do t[k] = k + i / 7 end
        return t
      end, { workers = 2, codec = "lua" })
    ]])
    assert.is_true(peak < 1.5 * heap + 6 * MIB, ("%d of %d"):format(peak, heap))
  end)

  it("stays as it is over an imap, however many there are", function()
    local peak, _, _, sum = grow(300000, [[
      extra = 0
      for i, text in fork_map.imap(n, function(i) return ("x"):rep(50) .. i end, {
        workers = 2, max_active = 1000,
      }) do
        assert(text:sub(51) == tostring(i))
        extra = extra + 1
      end
    ]])
    assert.equal(300000, sum)
    assert.is_true(peak < 8 * MIB, peak)
  end)

  it("stays as it is over many maps", function()
    local _, left, heap = grow(300, [[
      local function round()
        fork_map.map(50, function(i)
          if i % 20 == 0 then error({ i }) end
          fork_map.emit(i)
          return { i }
        end, { workers = 2, on_error = "collect", on_event = function() end })
      end
      for _ = 1, n do round() end
    ]])
    assert.is_true(heap < MIB / 8, heap)
    assert.is_true(left < 4 * MIB, left)
  end)
end)
