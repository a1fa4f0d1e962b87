-- SPDX-License-Identifier: MIT
local fork_map = require "fork_map"
local process = require "support.process"
local sys = require "specs_core"

local failure = process.failure

local is_asan = (os.getenv("FORK_MAP_PRELOAD") or "") ~= ""

local function echo(item)
  return item
end

-- An iterator of what `make` gives for 1, 2, … up to `n`, if that is not nil.
local function source(n, make)
  local i = 0
  return function()
    if n and i >= n then
      return nil
    end
    i = i + 1
    if make then
      return make(i)
    end
    return i
  end
end

-- All that a loop gets: { { index, value, kind of error }, … }.
local function gather(...)
  local rows = {}
  for i, value, err in ... do
    rows[#rows + 1] = { i, value, err and err.kind }
  end
  return rows
end

local function rss()
  local text = process.read_file("/proc/self/statm")
  return math.tointeger(tonumber(text:match("^%d+ (%d+)"))) * 4
end

for _, workers in ipairs { 0, 1, 2, 5 } do
  describe(("items of an iterator with workers = %d"):format(workers), function()
    process.guard(before_each, after_each, 8)
    local view = fork_map.with { workers = workers }

    it("give their results in the order in which they came", function()
      local rows = gather(view:imap(source(3, function(i) return ("abc"):sub(i, i) end),
        function(item, index) return item .. index end))
      assert.same({ { 1, "a1" }, { 2, "b2" }, { 3, "c3" } }, rows)
      local n = 0
      for i, value in view:imap(source(3000), function(item) return item * 2 end) do
        n = n + 1
        assert(i == n and value == 2 * n)
      end
      assert.equal(3000, n)
    end)

    it("give them once each in any order", function()
      local seen, n = {}, 0
      for i, value in view:imap_unordered(source(2000), echo) do
        assert(value == i and not seen[i])
        seen[i], n = true, n + 1
      end
      assert.equal(2000, n)
    end)

    it("are none when the iterator ends at once, and the loop goes on ending", function()
      local stream = view:imap(source(0), echo)
      for _ = 1, 3 do
        assert.is_nil(stream())
      end
      assert.equal(0, (view:each(source(0), echo)))
    end)

    it("cross as their codec says, whatever they are", function()
      local shared = { 1 }
      local items = {
        false, true, 0, -1, math.maxinteger, 0.1, -0.0, 1 / 0, "", "a\0\255", ("x"):rep(70000),
        {}, { 1, nil, 3 }, { [0] = "a", b = { c = {} } }, { shared, shared }, fork_map.null,
      }
      local function describe_item(item)
        local text = math.type(item) or type(item)
        return text, item
      end
      for i, value in view:imap(source(#items, function(i) return items[i] end), echo,
        { codec = "lua" }) do
        assert.same(items[i], value)
        assert.equal(math.type(items[i]), math.type(value))
      end
      for _, codec in ipairs { "auto", "json", "lua", "cjson" } do
        local rows = gather(view:imap(source(3, function(i) return ({ 1, 2.5, "x" })[i] end),
          describe_item, { codec = codec }))
        assert.equal("float", rows[2][2])
        assert.equal("string", rows[3][2])
      end
      local pair = {
        encode = function(packed) return "<" .. packed[1] .. ">" end,
        decode = function(text) return { n = 1, text:sub(2, -2) .. "!" } end,
      }
      local rows = gather(view:imap(source(2), echo, { codec = pair }))
      assert.same({ { 1, "1!!" }, { 2, "2!!" } }, rows)
    end)

    it("that cannot cross fail for themselves, and say what of them", function()
      local function make(i)
        return i % 3 == 0 and { a = { print } } or i
      end
      local errors = {}
      local rows = {}
      for i, value, err in view:imap(source(7, make), echo) do
        rows[#rows + 1] = value or "none"
        errors[i] = err
      end
      assert.same({ 1, 2, "none", 4, 5, "none", 7 }, rows)
      assert.same({ "encode", "arg1.a[1]", 3, 1 },
        { errors[3].kind, errors[3].path, errors[3].index, errors[3].attempt })
      assert.equal(6, errors[6].index)
      local err = failure(function()
        gather(view:imap(source(7, make), echo, { on_error = "raise" }))
      end)
      assert.same({ "encode", 3 }, { err.kind, err.index })
      local n, all = view:each(source(7, make), echo, { on_error = "collect" })
      assert.equal(5, n)
      assert.same({ "encode", "encode" }, { all[3].kind, all[6].kind })
    end)

    it("fail as those of a list do", function()
      local function fail(item, index)
        if index == 4 then
          error("no " .. item, 0)
        end
        return index
      end
      assert.same({ { 1, 1 }, { 2, 2 }, { 3, 3 }, { 4, nil, "error" }, { 5, 5 } },
        gather(view:imap(source(5), fail)))
      local err = failure(view.each, view, source(1000), fail)
      assert.same({ "error", "no 4", 4 }, { err.kind, err.message, err.index })
      assert.same({}, process.children())
    end)

    it("are read no further ahead of the consumer than max_active says", function()
      for _, active in ipairs { 1, 2, 7, 50 } do
        for _, verb in ipairs { "imap", "imap_unordered" } do
          local read, consumed, most = 0, 0, 0
          local function counted()
            read = read + 1
            most = math.max(most, read - consumed)
            return read <= 300 and read or nil
          end
          for _ in view[verb](view, counted, echo, { max_active = active }) do
            assert(read - consumed <= active)
            consumed = consumed + 1
          end
          assert.equal(300, consumed)
          -- That there are no more is found out by one more reading.
          assert(most <= active, most)
          assert.equal(workers == 0 and 1 or active, most)
        end
      end
    end)

    it("may be endless: they need constant memory", function()
      local function run(n)
        for i, value in view:imap(source(nil, function(i) return { i, ("x"):rep(100) } end),
          function(item) return item[1] end) do
          assert(value == i)
          if i == n then
            break
          end
        end
        collectgarbage()
        collectgarbage()
        return collectgarbage("count"), rss()
      end
      run(2000)
      local heap, resident = run(2000)
      local heap_after, resident_after = run(is_asan and 4000 or 20000)
      assert(heap_after - heap < 64, heap_after - heap)
      -- The address sanitizer keeps what was freed.
      assert(is_asan or resident_after - resident < 2048, resident_after - resident)
    end)

    it("end with what their iterator raises, at the consumer's next step", function()
      local function make(i)
        if i == 5 then
          error({ code = 7 })
        end
        return i
      end
      local seen = 0
      local ok, err = pcall(function()
        for _ in view:imap(source(nil, make), echo) do
          seen = seen + 1
        end
      end)
      assert.same({ false, { code = 7 } }, { ok, err })
      assert(seen < 5)
      assert.same({}, process.children())
      local stream = view:imap(source(nil, make), echo)
      while pcall(stream) do
        seen = seen + 1
      end
      assert.is_nil(stream())
      assert.has_error(function() view:each(source(nil, make), echo) end)
    end)

    it("may come from other calls of fork_map, and from coroutines", function()
      local rows = gather(view:imap(source(3, function(i) return fork_map(echo, i * 10) end), echo))
      assert.same({ { 1, 10 }, { 2, 20 }, { 3, 30 } }, rows)
      local squares = view:imap(source(4), function(i) return i * i end)
      local function second()
        return (select(2, squares()))
      end
      assert.same({ { 1, 2 }, { 2, 5 }, { 3, 10 }, { 4, 17 } },
        gather(view:imap(second, function(i) return i + 1 end)))
      local wrapped = coroutine.wrap(function()
        for i = 1, 3 do
          coroutine.yield(i)
        end
      end)
      assert.same({ { 1, 1 }, { 2, 2 }, { 3, 3 } }, gather(view:imap(wrapped, echo)))
    end)

    it("may be waited for by the consumer's own coroutine", function()
      local function make(i)
        coroutine.yield("wait")
        return i <= 3 and i or nil
      end
      local thread = coroutine.create(function()
        return gather(view:imap(source(nil, make), echo))
      end)
      local waits, got = -1, "wait"
      while got == "wait" do
        got = select(2, assert(coroutine.resume(thread)))
        waits = waits + 1
      end
      assert.same({ { 1, 1 }, { 2, 2 }, { 3, 3 } }, got)
      assert.equal(4, waits)
    end)

    it("cannot be asked for by their own iterator", function()
      local stream
      stream = view:imap(function() return stream() end, echo)
      local ok, err = pcall(stream)
      assert.is_false(ok)
      assert.matches("its own items", err, 1, true)
      assert.is_nil(stream())
    end)

    it("end when the iterator closes the loop", function()
      local stream
      stream = view:imap(source(nil, function(i)
        if i == 4 then
          stream:close()
        end
        return i
      end), echo)
      for _ in stream do
        assert(true)
      end
      assert.same({}, process.children())
    end)

    it("are let go when the loop is left", function()
      for i in view:imap(source(), echo) do
        if i == 3 then
          break
        end
      end
      assert.same({ false, "in the body" }, { pcall(function()
        for _ in view:imap_unordered(source(), echo) do
          error("in the body", 0)
        end
      end) })
      assert.same({}, process.children())
    end)

    it("end by stop() and by a deadline", function()
      local n, errors, stopped = view:each(source(), function(i)
        if i == 20 then
          fork_map.stop("enough")
        elseif i > 500 then
          sys.sleep(30)
        end
      end)
      assert(n < 1000, n)
      assert.is_nil(errors)
      assert.equal("enough", stopped)
      local err = failure(function()
        gather(view:imap(source(), function() sys.sleep(0.002) end, { deadline = 0.1 }))
      end)
      assert.equal("timeout", err.kind)
      assert.same({}, process.children())
    end)

    it("show progress without a total", function()
      local last
      view:each(source(200), function() sys.sleep(0.001) end, {
        progress = function(state) last = state end,
      })
      assert.same({ 200, 0 }, { last.done, last.failed })
      assert.is_nil(last.total)
      assert.is_nil(last.eta)
    end)

    it("have random numbers that follow from seed and index alone", function()
      local function draw()
        return math.random(1 << 40)
      end
      local list = view:map(50, draw, { seed = 5 })
      for i, value in view:imap(source(50), draw, { seed = 5 }) do
        assert.equal(list[i], value)
      end
    end)

    it("may come from anything that can be called and is no list", function()
      local object = setmetatable({ left = 3 }, { __call = function(self)
        self.left = self.left - 1
        return self.left >= 0 and self.left or nil
      end })
      assert.same({ { 1, 2 }, { 2, 1 }, { 3, 0 } }, gather(view:imap(object, echo)))
      local lines = gather(view:imap(("a b c"):gmatch("%a"), echo))
      assert.same({ { 1, "a" }, { 2, "b" }, { 3, "c" } }, lines)
    end)
  end)
end

describe("items of an iterator", function()
  process.guard(before_each, after_each, 8)
  local view = fork_map.with { workers = 2 }

  it("are refused by verbs that need all of them at once, with a hint", function()
    for _, verb in ipairs { "map", "find", "reduce" } do
      local ok, err = pcall(view[verb], view, source(3), echo, echo)
      assert.is_false(ok)
      assert.matches(("fork_map.%s: a list is expected, not an iterator; imap and each take one")
        :format(verb), err, 1, true)
    end
    assert.has_error(function() view:each(source(3), echo, { journal = "/nowhere" }) end,
      'fork_map.each: option "journal" needs a list, not an iterator')
    assert.same({}, process.children())
  end)

  it("cost themselves alone when their worker dies", function()
    local deaths = { function() sys.kill(sys.getpid(), 9) end, function() os.exit(3) end,
      function() sys.kill(sys.getpid(), 11) end }
    local rounds, n = 100, 0
    for i, value, err in view:imap(source(rounds * 10), function(item)
      if item % 10 == 5 then
        deaths[item // 10 % 3 + 1]()
      end
      return item * 3
    end) do
      n = n + 1
      if i % 10 == 5 then
        assert.equal(i // 10 % 3 == 1 and "exit" or "signal", err.kind)
        assert.equal(i, err.index)
      else
        assert.equal(i * 3, value)
      end
    end
    assert.equal(rounds * 10, n)
  end)

  it("are given again when they are tried again", function()
    local rows = gather(view:imap(source(200, function(i) return { i, tostring(i) } end),
      function(item, index)
        assert(item[1] == index and item[2] == tostring(index))
        if index % 10 == 5 and fork_map.worker().attempt < 3 then
          sys.kill(sys.getpid(), 9)
        end
        return fork_map.worker().attempt
      end, { retries = 2 }))
    for i, row in ipairs(rows) do
      assert.same({ i, i % 10 == 5 and 3 or 1 }, row)
    end
  end)

  it("run elsewhere when the one before them takes long", function()
    local began = sys.now()
    local seen = {}
    for i in view:imap_unordered(source(200), function(item)
      if item == 3 then
        sys.sleep(0.4)
      end
    end, { chunk = 10 }) do
      seen[#seen + 1] = i
    end
    assert.equal(200, #seen)
    assert.equal(3, seen[200])
    assert(sys.now() - began < 10)
  end)

  it("may be large", function()
    local text = ("0123456789abcdef"):rep(5 << 16)
    for i, value in view:imap(source(6, function(i) return { i, text } end), function(item)
      return { item[1], #item[2], item[2]:sub(-3) }
    end) do
      assert.same({ i, 5 << 20, "def" }, value)
    end
    for i, value in view:imap(source(6, function() return text end), echo) do
      assert(value == text, i)
    end
  end)

  it("time out alone, which does not count the wait for them", function()
    local rows = gather(view:imap(source(20, function(i)
      sys.sleep(0.01)
      return i
    end), function(item)
      if item == 7 then
        sys.sleep(5)
      end
      return item
    end, { timeout = 0.15, max_active = 30 }))
    for i, row in ipairs(rows) do
      assert.same(i == 7 and { 7, nil, "timeout" } or { i, i }, row)
    end
    assert.equal(20, #rows)
  end)

  it("may have a process each, or for each chunk", function()
    for _, isolate in ipairs { "item", "chunk" } do
      local pids = {}
      for i, value in view:imap(source(20), function(item)
        return { item, fork_map.worker().pid }
      end, { isolate = isolate, chunk = isolate == "chunk" and 1 or nil }) do
        assert.equal(i, value[1])
        assert.is_nil(pids[value[2]])
        pids[value[2]] = true
      end
    end
    for i, value in view:imap(source(100), echo, { max_tasks = 7 }) do
      assert.equal(i, value)
    end
  end)

  it("reach their workers while the consumer is busy", function()
    local began = sys.now()
    local n = 0
    for _ in view:imap(source(40), function() sys.sleep(0.01) end) do
      n = n + 1
      sys.sleep(0.005)
    end
    assert.equal(40, n)
    -- One after the other it would be 0.01 / 2 + 0.005 for each.
    assert(sys.now() - began < 10)
  end)

  it("are handed out while the iterator waits for more", function()
    local order = {}
    local function make(i)
      sys.sleep(0.03)
      order[#order + 1] = "read"
      return i <= 4 and i or nil
    end
    for _ in view:imap(source(nil, make), echo, { max_active = 1 }) do
      order[#order + 1] = "have"
    end
    assert.same({ "read", "have", "read", "have", "read", "have", "read", "have", "read" }, order)
  end)

  it("cannot be asked for in a child, which has no part in them", function()
    local stream <close> = view:imap(source(1000), echo, { max_active = 10 })
    assert.equal(1, (stream()))
    assert.equal("closed", fork_map(function()
      local ok, err
      repeat
        ok, err = pcall(stream)
      until not ok
      return err.kind
    end))
    assert.equal(2, (stream()))
  end)

  it("end with their engine, and when nobody holds the loop any more", function()
    local engine = fork_map.new {}
    local stream = engine:imap(source(), echo, { workers = 2 })
    assert.equal(1, (stream()))
    engine:close()
    local ok, err
    repeat
      ok, err = pcall(stream)
    until not ok
    assert.equal("closed", err.kind)
    assert.is_nil(stream())
    stream = view:imap(source(), echo)
    assert.equal(1, (stream()))
    stream = nil
    assert.is_nil(stream)
    collectgarbage()
    collectgarbage()
    process.eventually(function()
      fork_map(echo)
      return #process.children() == 0
    end, "the end of the workers")
  end)

  it("are worked on in the worker itself when that has a source of its own", function()
    assert.same({ 15, 30, n = 2 }, view:map(2, function(i)
      local sum = 0
      for _, value in fork_map.imap(source(5), function(x) return x * i end) do
        sum = sum + value
      end
      return sum
    end))
  end)

  it("come to workers that have no descriptor of the host's", function()
    local text = ("x"):rep(3 << 20)
    for _, value in view:imap(source(5, function() return text end), string.len,
      { keep_fds = {} }) do
      assert.equal(3 << 20, value)
    end
  end)

  it("that need more memory than they may have fail for themselves", function()
    local function make(i)
      return i == 2 and ("x"):rep(40 << 20) or "x"
    end
    assert.same({ { 1, 1 }, { 2, nil, "limit" }, { 3, 1 } },
      gather(view:imap(source(3, make), string.len, { limits = { memory = "16M" } })))
  end)

  it("send events, and call init and exit in each worker", function()
    local events = {}
    local count = view:each(source(10), function(item) fork_map.emit(item) end, {
      on_event = function(value, index) events[index] = value end,
      init = function() fork_map.at_fork {} end,
      exit = function() end,
    })
    assert.equal(10, count)
    assert.same({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, events)
  end)
end)
