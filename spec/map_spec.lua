-- SPDX-License-Identifier: MIT
local fork_map = require "fork_map"
local process = require "support.process"
local sys = require "specs_core"

local failure = process.failure

-- What holds whether items have workers or none.
local function describe_both(name, body)
  for _, workers in ipairs { 0, 2 } do
    describe(("%s with workers = %d"):format(name, workers), function()
      body(fork_map.with { workers = workers }, workers)
    end)
  end
end

local function echo(item)
  return item
end

describe_both("fork_map.map", function(view, workers)
  process.guard(before_each, after_each, 8)

  it("returns the results in the order of the list, and their number", function()
    local results, errors = view:map({ "a", "b", "c" }, function(item, index)
      return item .. index
    end)
    assert.same({ "a1", "b2", "c3", n = 3 }, results)
    assert.is_nil(errors)
  end)

  it("takes an integer as the numbers up to it", function()
    assert.same({ 1, 4, 9, n = 3 }, view:map(3, function(item, index) return item * index end))
    assert.same({ 1, n = 1 }, view:map(1.0, echo))
  end)

  it("returns nothing for nothing, without calling anybody", function()
    local function never()
      error("called")
    end
    local opts = { init = never, exit = never }
    assert.same({ n = 0 }, view:map({}, never, opts))
    assert.same({ n = 0 }, view:map(0, never, opts))
    assert.same({ n = 0 }, view:map({ n = 0, 1, 2 }, never, opts))
  end)

  it("takes the length from the field n, and holes as nils", function()
    local list = { n = 4, nil, "b", nil, false }
    assert.same({ "nil", "string", "nil", "boolean", n = 4 }, view:map(list, type))
    assert.same({ nil, "b", nil, false, n = 4 }, view:map(list, echo))
    assert.same({ 1, n = 1 }, view:map({ 1, 2, 3, n = 1 }, echo))
  end)

  it("asks a list with __index and __len for its items", function()
    local squares = setmetatable({}, {
      __index = function(_, i) return i * i end,
      __len = function() return 4 end,
    })
    assert.same({ 1, 4, 9, 16, n = 4 }, view:map(squares, echo))
  end)

  it("keeps the first value of each item, and nil for none", function()
    assert.same({ 1, 2, n = 2 }, view:map(2, function(i) return i, "more" end))
    assert.same({ n = 2 }, view:map(2, function() end))
    assert.same({ nil, 2, n = 2 }, view:map(2, function(i) if i == 2 then return 2 end end))
  end)

  it("carries values of every type exactly", function()
    local shared = { 1 }
    local values = {
      true, false, 0, -1, math.maxinteger, math.mininteger, 0.5, -0.0, 1e300, math.huge, "",
      "a\0b\255", ("x"):rep(70000), {}, { 1, { 2, { 3 } } }, { a = 1, [2.5] = "b" },
      { shared, shared }, fork_map.null,
    }
    values.n = #values
    for _, codec in ipairs { "auto", "lua" } do
      local results = view:map(values, echo, { codec = codec })
      assert.same(values, results)
      assert.equal("integer", math.type(results[3]))
      assert.equal("-inf", tostring(1 / results[8]))
      assert.equal(results[17][1], results[17][2])
    end
    assert.is_true(view:map(1, function() return 0 / 0 end)[1] ~= 0)
  end)

  it("fails the items alone that the codec cannot carry", function()
    local results, errors = view:map({ 1, 0 / 0, "\255", print }, echo, {
      codec = "json", on_error = "collect",
    })
    assert.same({ 1, n = 4 }, results)
    for index = 2, 4 do
      assert.equal("encode", errors[index].kind)
      assert.equal("result", errors[index].path)
      assert.equal(index, errors[index].index)
    end
  end)

  it("takes a pair of functions as the codec, which gets packed values", function()
    local codec = {
      encode = function(packed) return ("%d %s"):format(packed.n, packed[1]) end,
      decode = function(text) return { n = 1, "<" .. text .. ">" } end,
    }
    assert.same({ "<1 a>", "<1 b>", n = 2 }, view:map({ "a", "b" }, echo, { codec = codec }))
  end)

  it("raises the first failure with its index and what there is", function()
    local err = failure(view.map, view, { 1, 2, 3 }, function(item)
      if item == 2 then
        error({ code = item })
      end
      return item
    end)
    assert.equal("error", err.kind)
    assert.equal(2, err.index)
    assert.equal(1, err.attempt)
    assert.same({ code = 2 }, err.value)
    assert.equal(3, err.partial.n)
    assert.is_nil(err.partial[2])
    assert.matches("map_spec", err.traceback)
  end)

  it("collects failures by index, and all results beside", function()
    local results, errors = view:map(10, function(i)
      if i % 3 == 0 then
        error("no " .. i, 0)
      end
      return i
    end, { on_error = "collect", name = "thirds" })
    assert.same({ 1, 2, nil, 4, 5, nil, 7, 8, nil, 10, n = 10 }, results)
    for index = 3, 9, 3 do
      assert.equal(index, errors[index].index)
      assert.equal("no " .. index, errors[index].message)
      assert.equal("thirds: no " .. index, tostring(errors[index]))
      errors[index] = nil
    end
    assert.same({}, errors)
  end)

  it("tells errors of every type", function()
    local raised = { nil, "text", 12, 1.5, true, { 1 }, print, n = 7 }
    raised[8] = setmetatable({}, { __tostring = function() return "by itself" end })
    raised.n = 8
    local _, errors = view:map(raised, function(item) error(item, 0) end, { on_error = "collect" })
    local messages = {}
    for i = 1, raised.n do
      messages[i] = errors[i].message
    end
    assert.same({
      "(error object is a nil value)", "text", "12", "1.5", "(error object is a boolean value)",
      "(error object is a table value)", "(error object is a function value)", "by itself",
    }, messages)
    assert.same({ nil, "text", 12, 1.5, true, { 1 }, nil, {} }, {
      errors[1].value, errors[2].value, errors[3].value, errors[4].value, errors[5].value,
      errors[6].value, errors[7].value, errors[8].value,
    })
    assert.is_nil(errors[1].value)
    assert.is_nil(errors[7].value)
  end)

  it("retries kinds that are listed, that item alone, and counts attempts", function()
    local name = os.tmpname()
    local function runs()
      local counts = {}
      for line in io.lines(name) do
        counts[tonumber(line)] = (counts[tonumber(line)] or 0) + 1
      end
      return counts
    end
    local results, errors = view:map(5, function(i)
      local file <close> = io.open(name, "a")
      file:write(i, "\n")
      local attempt = fork_map.worker().attempt
      if (i == 2 and attempt < 3) or i == 4 then
        error("again", 0)
      end
      return attempt
    end, { retries = 2, retry_on = { "error" }, on_error = "collect" })
    assert.same({ 1, 3, 1, nil, 1, n = 5 }, results)
    assert.equal(3, errors[4].attempt)
    assert.same({ 1, 3, 1, 3, 1 }, runs())
    os.remove(name)
  end)

  it("waits before another attempt, longer each time", function()
    local took = process.timed(view.map, view, 1, function()
      error("no", 0)
    end, { retries = 2, retry_on = { "error" }, backoff = 0.03, on_error = "collect" })
    assert.is_true(took >= 0.09, took)
  end)

  it("limits the time of each item from its start, not that of the others", function()
    local results, errors = view:map(4, function(i)
      while i == 3 do end
      return i
    end, { timeout = 0.1, on_error = "collect", chunk = 4, grace = 0 })
    assert.same({ 1, 2, nil, 4, n = 4 }, results)
    assert.equal("timeout", errors[3].kind)
    assert.matches("longer than its timeout of 0.1 s", errors[3].message)
    assert.is_nil(errors[4])
  end)

  it("limits the whole by a deadline, also when failures are collected", function()
    local took, _, err = process.timed(view.map, view, 3, function(i)
      while i > 1 do end
      return i
    end, { deadline = 0.15, on_error = "collect", grace = 0 })
    assert.equal("timeout", err.kind)
    assert.is_nil(err.index)
    assert.matches("deadline", err.message)
    assert.equal(1, err.partial[1])
    assert.is_true(took < 2)
  end)

  it("ends when an item says so, with what there is", function()
    local results, errors = view:map(100000, function(i)
      if i == 10 then
        fork_map.stop { found = i }
      elseif i > 1000 then
        sys.sleep(30)
      end
      return i
    end, { chunk = 1 })
    assert.same({ found = 10 }, results.stopped)
    assert.equal(100000, results.n)
    assert.is_nil(results[10])
    assert.is_nil(results[100000])
    assert.is_nil(errors)
  end)

  it("hands on what items emit, before their results and in their order", function()
    local events = {}
    view:map(20, function(i)
      fork_map.emit(i)
      fork_map.emit { twice = 2 * i }
    end, {
      on_event = function(value, index)
        events[index] = events[index] or {}
        table.insert(events[index], value)
      end,
    })
    for i = 1, 20 do
      assert.same({ i, { twice = 2 * i } }, events[i])
    end
  end)

  it("drops what nobody listens to, and refuses what cannot cross", function()
    assert.same({ 1, n = 1 }, view:map(1, function(i) fork_map.emit(i) return i end))
    for _, send in ipairs { fork_map.emit, fork_map.stop } do
      local err = failure(view.map, view, 1, function()
        send { a = print }
      end)
      assert.matches("map_spec.lua:%d+: fork_map: value.a: a function cannot be encoded",
        err.message)
    end
  end)

  it("tells an item where it is", function()
    local function place()
      local worker = fork_map.worker()
      return { worker.index, worker.attempt, math.type(worker.id), worker.pid == sys.getpid() }
    end
    local results = view:map(3, place)
    for i = 1, 3 do
      assert.same({ i, 1, "integer", true }, results[i])
    end
    assert.is_nil(fork_map.worker())
    assert.equal(workers > 0, view:map(1, function() return fork_map.worker().id > 0 end)[1])
  end)

  it("runs init before the first and exit after the last item of each worker", function()
    local name = os.tmpname()
    local function note(text)
      local file <close> = io.open(name, "a")
      file:write(sys.getpid(), " ", text, "\n")
    end
    view:map(20, function() note "item" end, {
      chunk = 1,
      init = function() note "init" end,
      exit = function() note "exit" end,
    })
    local states, n = {}, 0
    for line in io.lines(name) do
      local pid, text = line:match("(%d+) (%a+)")
      if text == "init" then
        assert.is_nil(states[pid])
      else
        assert.is_true(states[pid] == "init" or states[pid] == "item")
      end
      n = n + (text == "item" and 1 or 0)
      states[pid] = text
    end
    for _, state in pairs(states) do
      assert.equal("exit", state)
    end
    assert.equal(20, n)
    os.remove(name)
  end)

  it("raises what init or exit raise, whatever happens to failures of items", function()
    for _, hook in ipairs { "init", "exit" } do
      local err = failure(view.map, view, 3, echo, {
        [hook] = function() error(hook .. " failed", 0) end, on_error = "collect",
      })
      assert.equal("error", err.kind)
      assert.equal(hook .. " failed", err.message)
      assert.is_nil(err.index)
    end
  end)

  it("gives an item the same random numbers with a seed, whoever works on it", function()
    local function draw()
      return { math.random(1000000), math.random(1000000) }
    end
    local first = view:map(10, draw, { seed = 7 })
    assert.same(fork_map.map(10, draw, { seed = 7, workers = 3, chunk = 1 }), first)
    assert.not_same(first[1], first[2])
    assert.not_same(first, view:map(10, draw, { seed = 8 }))
  end)

  it("does not let an item yield out of it", function()
    local map = coroutine.wrap(function()
      return view:map(1, function()
        return coroutine.wrap(function() coroutine.yield(1) return 2 end)()
      end)[1], failure(view.map, view, 1, coroutine.yield).kind
    end)
    assert.same({ 1, "error" }, { map() })
  end)

  it("passes on what a handler of events or of progress raises, and leaves nothing", function()
    local opts = { on_event = function() error("in the handler", 0) end }
    local ok, err = pcall(view.map, view, 1000, fork_map.emit, opts)
    assert.same({ false, "in the handler" }, { ok, err })
    opts = { progress = function() error("in progress", 0) end }
    ok, err = pcall(view.map, view, 1000, echo, opts)
    assert.same({ false, "in progress" }, { ok, err })
  end)

  it("works in a coroutine, in a finalizer's neighbour and in a sort", function()
    assert.same({ 1, 2, n = 2 }, coroutine.wrap(function() return view:map(2, echo) end)())
    local list = { 3, 1, 2 }
    table.sort(list, function(a, b) return view:map({ a < b }, echo)[1] end)
    assert.same({ 1, 2, 3 }, list)
  end)

  it("gives each() the number of items that ended well, and the errors", function()
    assert.same({ 4 }, { view:each(4, echo) })
    local n, errors = view:each(4, function(i) if i == 2 then error("no", 0) end end, {
      on_error = "collect",
    })
    assert.equal(3, n)
    assert.equal("no", errors[2].message)
    local err = failure(view.each, view, 4, function() error("no", 0) end)
    assert.equal("no", err.message)
    local all = { view:each(4, function() return print end) }
    assert.same({ 4 }, all)
  end)
end)
