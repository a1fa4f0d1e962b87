-- SPDX-License-Identifier: MIT
local fork_map = require "fork_map"
local process = require "support.process"
local sys = require "specs_core"

local function echo(item)
  return item
end

-- All that an iterator hands out: { { index, value, err }, … }.
local function gather(...)
  local rows = {}
  for i, value, err in ... do
    rows[#rows + 1] = { i, value, err and err.kind }
  end
  return rows
end

for _, workers in ipairs { 0, 2 } do
  describe(("fork_map.imap with workers = %d"):format(workers), function()
    process.guard(before_each, after_each, 8)
    local view = fork_map.with { workers = workers }

    it("hands out index and value of each item in the order of the list", function()
      local rows = gather(view:imap({ "a", "b", "c" }, function(item, i) return item .. i end))
      assert.same({ { 1, "a1" }, { 2, "b2" }, { 3, "c3" } }, rows)
      local n = 0
      for i, value in view:imap(5000, echo) do
        n = n + 1
        assert(i == n and value == n)
      end
      assert.equal(5000, n)
    end)

    it("hands out nothing for nothing, and goes on doing so", function()
      assert.same({}, gather(view:imap({}, echo)))
      local iterator = view:imap(1, echo)
      assert.same({ 1, 1 }, { iterator() })
      for _ = 1, 3 do
        assert.is_nil(iterator())
      end
    end)

    it("hands out nil, false and holes under their indices", function()
      assert.same({ { 1, false }, { 2 }, { 3, "c" }, { 4 } },
        gather(view:imap({ false, nil, "c", n = 4 }, echo)))
    end)

    it("hands out an error beside the others, and raises it when asked to", function()
      local function fail(i)
        if i == 2 then
          error("no", 0)
        end
        return i
      end
      assert.same({ { 1, 1 }, { 2, nil, "error" }, { 3, 3 } }, gather(view:imap(3, fail)))
      local seen = {}
      local err = process.failure(function()
        for i in view:imap(3, fail, { on_error = "raise" }) do
          seen[#seen + 1] = i
        end
      end)
      assert.same({ "error", "no", 2 }, { err.kind, err.message, err.index })
      assert.same({ 1 }, seen)
    end)

    it("hands out all of them once in any order", function()
      local seen, n = {}, 0
      for i, value in view:imap_unordered(1000, function(i) return i * 2 end) do
        assert(value == 2 * i and not seen[i])
        seen[i], n = true, n + 1
      end
      assert.equal(1000, n)
    end)

    it("ends what runs when the loop is left, in every way", function()
      for _, verb in ipairs { "imap", "imap_unordered" } do
        for i in view[verb](view, 100000, echo) do
          if i > 2 then
            break
          end
        end
        assert.same({ false, "in the body" }, { pcall(function()
          for _ in view[verb](view, 100000, echo) do
            error("in the body", 0)
          end
        end) })
        local function find_first()
          for i in view[verb](view, 100000, echo) do
            if i > 0 then
              return i
            end
          end
        end
        assert.is_truthy(find_first())
        assert.same({}, process.children())
      end
    end)

    it("ends what runs when the iterator is dropped", function()
      local iterator = view:imap(100000, echo)
      assert.equal(1, iterator())
      iterator = nil
      assert.is_nil(iterator)
      collectgarbage()
      collectgarbage()
      fork_map.engine()(echo)
      process.eventually(function()
        fork_map(echo)
        return #process.children() == 0
      end, "the end of the workers")
    end)

    it("may be closed, and is empty then", function()
      local iterator <close> = view:imap(100, echo)
      assert.equal(1, iterator())
      iterator:close()
      iterator:close()
      assert.is_nil(iterator())
    end)

    it("ends by stop(), by init, by its deadline", function()
      local n = 0
      for _ in view:imap(100000, function(i)
        if i == 50 then
          fork_map.stop()
        elseif i > 1000 then
          sys.sleep(30)
        end
        return i
      end) do
        n = n + 1
      end
      assert.is_true(n < 100000)
      local opts = { init = function() error("no init", 0) end }
      assert.equal("no init", process.failure(gather, view:imap(3, echo, opts)).message)
      local err = process.failure(gather, view:imap(3, function() while true do end end, {
        deadline = 0.1, grace = 0,
      }))
      assert.same({ "timeout", nil }, { err.kind, err.index })
    end)

    it("runs exit once all have ended, and raises what it raises", function()
      local rows = {}
      local err = process.failure(function()
        for i in view:imap(3, echo, { exit = function() error("no exit", 0) end }) do
          rows[#rows + 1] = i
        end
      end)
      assert.equal("no exit", err.message)
      assert.same({ 1, 2, 3 }, rows)
    end)

    it("tells progress and events", function()
      local events, told = {}, nil
      local opts = {
        on_event = function(value, i) events[i] = value end,
        progress = function(state) told = state end,
      }
      for _ in view:imap(3, function(i) fork_map.emit(i * i) end, opts) do
      end
      assert.same({ 1, 4, 9 }, events)
      assert.same({ 3, 3, 0 }, { told.done, told.total, told.failed })
    end)

    it("works in a coroutine, beside another one", function()
      local function walk(n)
        return coroutine.wrap(function()
          for i in view:imap(n, echo) do
            coroutine.yield(i)
          end
        end)
      end
      local a, b = walk(3), walk(3)
      for i = 1, 3 do
        assert.equal(i, a())
        assert.equal(i, b())
      end
      a() b()
    end)

    it("raises at once what is wrong with its options", function()
      local ok, message = pcall(view.imap, view, 3, echo, { max_active = 0 })
      assert.is_false(ok)
      assert.matches('option "max_active"', message)
      ok, message = pcall(view.imap, view, 3, echo, { journal = "/tmp/journal" })
      assert.is_false(ok)
      assert.matches('fork_map.imap: option "journal" is for map and each', message)
    end)
  end)
end

describe("fork_map.imap in workers", function()
  process.guard(before_each, after_each, 8)

  it("begins no more items than max_active before those that were consumed", function()
    local name = os.tmpname()
    local file <close> = io.open(name, "a")
    file:setvbuf("no")
    local began = sys.now()
    for _, most in ipairs { 1, 3, 10 } do
      assert(io.open(name, "w")):close()
      for i in fork_map.imap(60, function() file:write("x") end, {
        workers = 3, chunk = 1, max_active = most,
      }) do
        if i % 20 == 0 then
          sys.sleep(0.02)
        end
        -- This one is not consumed before the next is asked for.
        local n = #process.read_file(name)
        assert.is_true(n >= i and n <= i + most, ("%d of %d with %d"):format(n, i, most))
      end
      assert.equal(60, #process.read_file(name))
    end
    assert.is_true(sys.now() - began < 2) -- nobody waits for what is there
    os.remove(name)
  end)

  it("hands out what is there while a slow item holds up its successors only", function()
    local order = {}
    for i in fork_map.imap_unordered(6, function(i)
      if i == 1 then
        sys.sleep(0.1)
      end
    end, { workers = 2, chunk = 1 }) do
      order[#order + 1] = i
    end
    assert.equal(1, order[6])
  end)

  it("hands out crashes as errors", function()
    local rows = gather(fork_map.imap(4, function(i) if i == 2 then os.exit(3) end return i end, {
      workers = 2,
    }))
    assert.same({ { 1, 1 }, { 2, nil, "exit" }, { 3, 3 }, { 4, 4 } }, rows)
  end)

  it("fails with the engine that is closed meanwhile", function()
    local engine = fork_map.new {}
    local iterator = engine:imap(100, function(i) sys.sleep(0.005) return i end, { workers = 2 })
    iterator()
    engine:close()
    local err = process.failure(function()
      while iterator() do end
    end)
    assert.equal("closed", err.kind)
  end)

  it("goes over a large list in constant memory", function()
    local before, most, n = nil, 0, 0
    for i in fork_map.imap(200000, function(i) return ("x"):rep(20) .. i end, {
      workers = 2, max_active = 1000,
    }) do
      n = n + 1
      if i % 10000 == 0 then
        collectgarbage()
        local now = collectgarbage("count")
        before = before or now
        most = math.max(most, now - before)
      end
    end
    assert.equal(200000, n)
    assert.is_true(most < 512, most)
  end)
end)
