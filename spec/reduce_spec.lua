-- SPDX-License-Identifier: MIT
local fork_map = require "fork_map"
local process = require "support.process"
local sys = require "specs_core"

local failure = process.failure

local function add(a, b)
  return a + b
end

local function concat(a, b)
  return a .. b
end

for _, workers in ipairs { 0, 2 } do
  local view = fork_map.with { workers = workers }

  describe(("fork_map.reduce with workers = %d"):format(workers), function()
    process.guard(before_each, after_each, 8)

    it("folds a list, and numbers", function()
      assert.same({ 500500 }, { view:reduce(1000, add, add, 0) })
      assert.equal("abc", view:reduce({ "a", "b", "c" }, concat, concat, ""))
      assert.equal(1 * 2 + 2 * 3, view:reduce({ 2, 3 }, function(acc, item, i)
        return acc + item * i
      end, add, 0))
    end)

    it("joins segments in their order", function()
      local function step(acc, _, i)
        return acc .. i .. ","
      end
      local parts = {}
      for i = 1, 5000 do
        parts[i] = i .. ","
      end
      assert.equal(table.concat(parts), view:reduce(5000, step, concat, ""))
    end)

    it("returns a copy of init for nothing", function()
      local init = { 1, { 2 } }
      local acc = view:reduce({}, add, add, init)
      assert.same(init, acc)
      assert.not_equal(init, acc)
      assert.equal("x", view:reduce(0, add, add, "x"))
    end)

    it("starts each segment from a fresh copy of init", function()
      local init = { n = 0 }
      local acc = view:reduce(3000, function(acc, item)
        acc.n = acc.n + item
        return acc
      end, function(a, b) return { n = a.n + b.n } end, init)
      assert.same({ n = 3000 * 3001 // 2 }, acc)
      assert.same({ n = 0 }, init)
    end)

    it("carries accumulators that are nil or false", function()
      assert.is_false(view:reduce(2000, function(acc, i) return acc and i < 1500 end,
        function(a, b) return a and b end, true))
      assert.is_nil(view:reduce(2000, function() end, function() end, nil))
    end)

    it("raises the failure of an item with its index", function()
      local err = failure(view.reduce, view, 3000, function(acc, i)
        if i == 1234 then
          error("no", 0)
        end
        return acc + i
      end, add, 0)
      assert.same({ "error", "no", 1234 }, { err.kind, err.message, err.index })
    end)

    it("leaves out items that fail when they are collected", function()
      local sum, errors = view:reduce(3000, function(acc, i)
        if i % 1000 == 7 or i == 8 then
          error("no " .. i, 0)
        end
        return acc + i
      end, add, 0, { on_error = "collect" })
      local expected = 3000 * 3001 // 2 - 7 - 8 - 1007 - 2007
      assert.equal(expected, sum)
      for _, i in ipairs { 7, 8, 1007, 2007 } do
        assert.same({ "no " .. i, i }, { errors[i].message, errors[i].index })
        errors[i] = nil
      end
      assert.same({}, errors)
    end)

    it("raises an accumulator that cannot cross, whatever is collected", function()
      local err = failure(view.reduce, view, 10, function() return print end, add, 0, {
        on_error = "collect",
      })
      assert.equal("encode", err.kind)
    end)

    it("passes on what combine raises, and refuses an init that cannot be copied", function()
      assert.same({ false, "in combine" }, { pcall(view.reduce, view, 2000, add, function()
        error("in combine", 0)
      end, 0) })
      local ok, message = pcall(view.reduce, view, 3, add, add, { a = print })
      assert.is_false(ok)
      assert.matches("init.a cannot be copied: a function cannot be encoded", message)
    end)

    it("has one deadline for all, also when segments are folded again", function()
      local took, _, err = process.timed(view.reduce, view, 100, function(acc, i)
        local began = sys.now()
        while sys.now() - began < 0.02 do end
        if i % 2 == 0 then
          error("no", 0)
        end
        return acc + i
      end, add, 0, { on_error = "collect", deadline = 0.3, grace = 0 })
      assert.equal("timeout", err.kind)
      assert.is_true(took < 1.5, took)
    end)

    it("returns what was folded when an item says stop", function()
      local sum, errors, stopped = view:reduce(2, function(acc, i)
        if i == 2 then
          fork_map.stop("enough")
        end
        return acc + i
      end, add, 0, { workers = math.min(workers, 1), chunk = 1 })
      assert.same({ 1, nil, "enough" }, { sum, errors, stopped })
    end)

    it("ends when nothing but init can fail", function()
      local err = failure(view.reduce, view, 3000, add, add, 0, {
        on_error = "collect", init = function() error("no init", 0) end,
      })
      assert.equal("no init", err.message)
    end)
  end)

  describe(("fork_map.find with workers = %d"):format(workers), function()
    process.guard(before_each, after_each, 8)

    it("returns index and item of a match, or nothing", function()
      assert.same({ 3, "c" }, { view:find({ "a", "b", "c" }, function(x) return x == "c" end) })
      assert.same({}, { view:find({ "a", "b" }, function() return nil end) })
      assert.same({}, { view:find({}, error) })
      assert.same({ 7, 7 }, { view:find(10, function(i) return i == 7 end) })
    end)

    it("finds items that are nil or false", function()
      local list = { n = 3, true, false }
      local index, item = view:find(list, function(x) return x == false end)
      assert.same({ 2, false }, { index, item })
      index, item = view:find(list, function(x) return x == nil end)
      assert.same({ 3, nil }, { index, item })
    end)

    it("returns a match, and the first one when asked for that", function()
      local function is_big(i)
        return i > 3000
      end
      assert.is_true(view:find(10000, is_big) > 3000)
      for _, chunk in ipairs { 1, 10, "auto" } do
        assert.equal(3001, (view:find(10000, is_big, { which = "first", chunk = chunk })))
      end
    end)

    it("takes any value that is true for a yes", function()
      assert.equal(1, (view:find(1, function() return print end)))
      assert.equal(1, (view:find(1, function() return 0 end)))
    end)

    it("stops the rest", function()
      local took = process.timed(view.find, view, 1000, function(i)
        if i > 4 then
          sys.sleep(0.02)
        end
        return i == 4
      end, { chunk = 1 })
      assert.is_true(took < 5)
    end)

    it("raises a failure before it finds anything, or passes over it", function()
      local function pick(i)
        if i == 2 then
          error("no", 0)
        end
        return i == 5
      end
      local opts = { which = "first", chunk = 1 }
      local err = failure(view.find, view, 10, pick, opts)
      assert.same({ "no", 2 }, { err.message, err.index })
      opts.on_error = "collect"
      assert.equal(5, (view:find(10, pick, opts)))
    end)

    it("fails by its deadline rather than with a match that may not be the first", function()
      local err = failure(view.find, view, 4, function(i)
        while i == 1 do end
        return true
      end, { which = "first", deadline = 0.1, grace = 0, chunk = 1 })
      assert.equal("timeout", err.kind)
    end)
  end)

  describe(("fork_map.chunks with workers = %d"):format(workers), function()
    process.guard(before_each, after_each, 8)

    it("makes lists of a number of items, the last of what is left", function()
      local chunks = fork_map.chunks({ 1, 2, 3, 4, 5 }, 2)
      assert.equal(3, #chunks)
      assert.same({ { 1, 2 }, { 3, 4 }, { 5 }, n = 3 }, view:map(chunks, function(x) return x end))
      assert.is_nil(chunks[0])
      assert.is_nil(chunks[4])
      assert.is_nil(chunks.size)
      local seen = {}
      for i, chunk in ipairs(chunks) do
        seen[i] = #chunk
      end
      assert.same({ 2, 2, 1 }, seen)
    end)

    it("takes numbers, nothing, and lists with holes", function()
      local function echo(x)
        return x
      end
      assert.same({ { 1, 2, 3 }, { 4 }, n = 2 }, view:map(fork_map.chunks(4, 3), echo))
      assert.same({ n = 0 }, view:map(fork_map.chunks({}, 3), echo))
      assert.same({ { 1, nil, n = 2 }, { 3, n = 1 }, n = 2 },
        view:map(fork_map.chunks({ 1, nil, 3, n = 3 }, 2), echo))
      assert.equal(1, #fork_map.chunks(3, math.maxinteger))
    end)
  end)
end

describe("fork_map.reduce in workers", function()
  process.guard(before_each, after_each, 8)

  it("folds the segment of an item that died again without it, and no other", function()
    local name = os.tmpname()
    local file <close> = io.open(name, "a")
    file:setvbuf("no")
    local sum, errors = fork_map.reduce(3000, function(acc, i)
      if i == 1 or i == 3 or i == 1500 then
        file:write(i .. "\n")
      end
      if i == 1500 then
        os.exit(9)
      end
      return acc + i
    end, add, 0, { workers = 2, on_error = "collect" })
    assert.equal(3000 * 3001 // 2 - 1500, sum)
    assert.same({ "exit", 1500 }, { errors[1500].kind, errors[1500].index })
    local lines = {}
    for line in io.lines(name) do
      lines[#lines + 1] = tonumber(line)
    end
    table.sort(lines)
    assert.same({ 1, 3, 1500 }, lines)
    os.remove(name)
  end)
end)

describe("fork_map.chunks", function()
  it("refuses what is no list and no size, at the line of the caller", function()
    for _, case in ipairs {
      { "abc", 1, "a list is expected, not a string" }, { {}, 0, "the size must be an integer" },
      { {}, 1.5, "the size must be an integer" }, { {}, nil, "the size must be an integer" },
      { -1, 1, "must be an integer, 0 or more" }, { { n = {} }, 1, 'field "n" must be' },
    } do
      local ok, message = pcall(function()
        local chunks = fork_map.chunks(case[1], case[2])
        return chunks
      end)
      assert.is_false(ok)
      assert.matches("^%.?/?spec/reduce_spec.lua:%d+: fork_map.chunks: .*", message)
      assert.is_truthy(message:find(case[3], 1, true), message)
    end
  end)
end)
