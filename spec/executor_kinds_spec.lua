-- SPDX-License-Identifier: MIT
-- What is true of one kind of executors; of all: spec/executor_spec.lua.
local fork_map = require "fork_map"
local futures = require "support.futures"
local process = require "support.process"
local quiet = require "support.quiet"
local sys = require "specs_core"

local inline = fork_map.executor.inline

local function give(...)
  return ...
end

describe("the option executor", function()
  quiet.guard(before_each, after_each)

  it("takes nothing without a method spawn, and not the module itself", function()
    for _, value in ipairs { 5, "x", true, give, {}, { spawn = 1 }, fork_map, io.stdout } do
      assert.matches('^spec/executor_kinds_spec.lua:%d+: fork_map: option "executor" must be an '
        .. "executor, which has a method spawn", futures.misuse(function()
          local _ = fork_map.with { executor = value }
        end))
    end
  end)

  it("is not for engines", function()
    assert.matches('^spec/executor_kinds_spec.lua:%d+: fork_map: option "executor" is for views',
      futures.misuse(function() local _ = fork_map.new { executor = inline } end))
    assert.matches('unknown option "executor"', futures.misuse(function()
      fork_map.engine():configure { executor = inline }
    end))
  end)

  it("is undone by false", function()
    local view = fork_map.with { executor = inline }
    assert.equal(sys.getpid(), view(sys.getpid))
    assert.are_not.equal(sys.getpid(), view:with { executor = false }(sys.getpid))
    assert.are_not.equal(sys.getpid(), view:map(1, sys.getpid, { executor = false })[1])
    assert.equal(sys.getpid(), view:map(1, sys.getpid)[1])
    view:nursery(function(n)
      assert.equal(sys.getpid(), n:spawn(sys.getpid):await())
    end)
    view:nursery(function(n)
      assert.are_not.equal(sys.getpid(), n:spawn(sys.getpid):await())
    end, { executor = false })
  end)
end)

describe("an engine as an executor", function()
  -- The default engine has the descriptor that it keeps for waits for several.
  setup(function()
    fork_map.engine():pollfd()
  end)
  quiet.guard(before_each, after_each, 4)

  it("heeds options of calls over its own", function()
    local engine <close> = fork_map.new { name = "own", timeout = 60 }
    local view = fork_map.with { executor = engine, timeout = 0.02, grace = 0 }
    local err = process.failure(view, function() while true do end end)
    assert.same({ "timeout", "own" }, { err.kind, err.name })
    view = fork_map.with { executor = engine, retries = 2 }
    assert.equal(3, view(function()
      local attempt = fork_map.worker().attempt
      if attempt < 3 then os.exit(1) end
      return attempt
    end))
    local f = fork_map.with { executor = engine, output = "capture" }:spawn(print, "printed")
    f:await()
    assert.equal("printed\n", (f:output()))
  end)

  it("refuses what an engine refuses", function()
    local engine <close> = fork_map.new()
    engine:close()
    local view = fork_map.with { executor = engine }
    assert.equal("closed", process.failure(view, give).kind)
    assert.equal("closed", process.failure(fork_map.map, 2, give, { executor = engine }).kind)
  end)

  it("has no more processes for a map than the map has workers", function()
    local engine <close> = fork_map.new()
    local gate <close> = futures.gate()
    local most = 0
    local function look()
      most = math.max(most, #process.children())
    end
    local it = engine:imap_unordered(6, function(i)
      if i > 1 then gate.wait() end
      return i
    end, { executor = engine, workers = 3 })
    it()
    look()
    gate.open()
    for _ in it do look() end
    assert.equal(3, most)
  end)

  it("gives items the numbers of their seed", function()
    local engine <close> = fork_map.new()
    local function roll() return math.random(1 << 30) end
    local expected = fork_map.map(4, roll, { seed = 7 })
    assert.same(expected, fork_map.map(4, roll, { seed = 7, executor = engine }))
    assert.same(expected, fork_map.map(4, roll, { seed = 7, executor = inline }))
    local view = fork_map.with { seed = 7 }
    assert.equal(view(roll), view:with { executor = inline }(roll))
    assert.equal(view(math.random, 100), view:with { executor = engine }("math:random", 100))
    assert.same(fork_map.map({ 1, 1, 1, 1, 1 }, math.random, { seed = 7 }),
      fork_map.map({ 1, 1, 1, 1, 1 }, "math:random", { seed = 7, executor = engine }))
  end)

  it("raises what failed, and not what was cancelled for it", function()
    local engine <close> = fork_map.new()
    local err = process.failure(fork_map.map, 2, function(i)
      while i == 1 do end
      error("second", 0)
    end, { executor = engine, workers = 2 })
    assert.same({ "second", 2 }, { err.message, err.index })
  end)

  it("has nothing left of a map that is left by an error", function()
    local engine <close> = fork_map.new()
    local function spin(i) while i > 1 do end end
    local opts = { executor = engine, workers = 3, progress = function() error("told", 0) end }
    assert.same({ false, "told" }, { pcall(fork_map.map, 3, spin, opts) })
    assert.same({}, process.children())
    opts.progress = nil
    local n = 0
    local function source()
      n = n + 1
      return n < 3 and n or error("dry", 0)
    end
    assert.same({ false, "dry" }, { pcall(fork_map.each, source, spin, opts) })
    assert.same({}, process.children())
    assert.same({ false, "seen" }, { pcall(function()
      for _ in fork_map.imap_unordered(3, spin, opts) do error("seen", 0) end
    end) })
    assert.same({}, process.children())
    local it
    it = fork_map.imap(function()
      it:close()
      return 1
    end, spin, opts)
    assert.is_nil(it())
  end)

  it("has nothing left of a map whose task or nursery is cancelled", function()
    local engine <close> = fork_map.new()
    local function spin() while true do end end
    local opts = { executor = engine, workers = 2 }
    local task = fork_map.task(fork_map.map, 3, spin, opts)
    futures.step_until(fork_map.engine(), function() return #process.children() == 2 end, "two")
    task:cancel()
    task:wait()
    assert.same({ "cancelled", 0 }, { task:status(), #process.children() })
    task = fork_map.task(fork_map.map, 3, spin, opts)
    futures.step_until(fork_map.engine(), function() return #process.children() == 2 end, "two")
    task:cancel(0)
    task:wait()
    assert.same({ "cancelled", 0 }, { task:status(), #process.children() })
    local err = process.failure(fork_map.nursery, function()
      fork_map.map(3, spin, opts)
    end, { deadline = 0.01 })
    assert.same({ "timeout", 0 }, { err.kind, #process.children() })
  end)

  it("ends a map with the engine", function()
    local engine <close> = fork_map.new()
    local opts = { executor = engine, workers = 2, on_error = "collect" }
    local task = fork_map.task(fork_map.map, 5, function() while true do end end, opts)
    futures.step_until(fork_map.engine(), function() return #process.children() == 2 end, "two")
    engine:close()
    assert.equal("closed", process.failure(task.await, task).kind)
  end)

  it("lets go of a map that nobody can ask any more", function()
    local engine <close> = fork_map.new()
    local it = fork_map.imap_unordered(3, function(i) while i > 1 do end end, { executor = engine })
    assert.equal(1, (it()))
    it = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    futures.step_until(engine, function()
      return #process.children() == 0
    end, "the end of the calls")
  end)
end)

describe("fork_map.executor.inline", function()
  quiet.guard(before_each, after_each)

  it("calls here and now", function()
    local seen = {}
    local f = inline:spawn(function(x) seen[1] = x return sys.getpid() end, "x")
    assert.same({ "x", "done" }, { seen[1], f:status() })
    assert.same({ true, sys.getpid() }, { f:poll() })
  end)

  it("hands over copies, as a process does", function()
    local value = { 1 }
    local f = inline:spawn(function(t) t[2] = 2 return t end, value)
    assert.same({ { 1, 2 }, { 1 } }, { f:await(), value })
    local err = process.failure(fork_map.with { executor = inline }, give, 1, { a = print })
    assert.same({ "encode", "arg2.a" }, { err.kind, err.path })
    err = process.failure(fork_map.with { executor = inline }, function() return 1, print end)
    assert.same({ "encode", "result2" }, { err.kind, err.path })
    err = process.failure(fork_map.with { executor = inline, codec = "json" }, give, 0 / 0)
    assert.same({ "encode", "arg1" }, { err.kind, err.path })
  end)

  it("refuses options that need a process", function()
    for name, value in pairs {
      limits = { memory = "1G" }, output = "capture", keep_fds = {}, nice = 1,
    } do
      assert.matches(('^spec/executor_kinds_spec.lua:%%d+: fork_map: option "%s" needs a process, '
        .. "and executor.inline makes none"):format(name), futures.misuse(function()
          local _ = fork_map.with { executor = inline, [name] = value }
        end))
      assert.matches(('option "%s" needs a process'):format(name), futures.misuse(function()
        fork_map.nursery(give, { executor = inline, [name] = value })
      end))
      assert.matches(('option "%s" needs a process'):format(name), futures.misuse(function()
        fork_map.map(1, give, { executor = inline, [name] = value })
      end))
    end
  end)

  it("heeds a time limit, retries and a name", function()
    local view = fork_map.with { executor = inline, timeout = 0.01, name = "slow" }
    local err = process.failure(view, function() while true do end end)
    assert.same({ "timeout", "slow" }, { err.kind, err.name })
    assert.same({ 1, nil, n = 2 }, table.pack(view(give, 1, nil)))
    local n = 0
    view = fork_map.with { executor = inline, retries = 3, retry_on = { "error" }, backoff = 0.001 }
    assert.equal(3, view(function()
      n = n + 1
      return n == fork_map.worker().attempt and n == 3 and n or error("again")
    end))
    assert.equal(4, process.failure(view, error).attempt)
    fork_map.run(function()
      assert.equal(4, process.failure(view, error, "x").attempt)
    end)
  end)

  it("holds up no time limit of an item around it", function()
    local _, errors = fork_map.map(1, function()
      inline:spawn(function() while true do end end)
    end, { workers = 0, timeout = 0.01, on_error = "collect" })
    assert.equal("timeout", errors[1].kind)
    local err = process.failure(fork_map.map, 1, function()
      return fork_map.with { executor = inline }(function() while true do end end)
    end, { workers = 0, deadline = 0.01 })
    assert.equal("timeout", err.kind)
  end)

  it("tells where it is", function()
    assert.same({ { 0, 1 }, { 0, 2 }, n = 2 }, fork_map.map(2, function()
      local worker = fork_map.worker()
      return { worker.id, worker.index }
    end, { executor = inline }))
    local inner = inline:spawn(function()
      local here = fork_map.worker()
      local below = fork_map.map(1, function() return fork_map.worker().index end, { workers = 0 })
      return here.index, below[1], fork_map.worker().index
    end)
    assert.same({ nil, 1, nil, n = 3 }, table.pack(inner:await()))
    assert.is_nil(fork_map.worker())
    assert.same({ { 1, nil, n = 2 }, n = 1 }, fork_map.map(1, function()
      local below = inline:spawn(function() return fork_map.worker().index end)
      return { fork_map.worker().index, below:await(), n = 2 }
    end, { workers = 0 }))
  end)

  it("sends no events and ends no map", function()
    local f = inline:spawn(function()
      fork_map.emit(1)
      fork_map.stop(2)
    end)
    assert.matches("fork_map.stop: not in an item of a map", process.failure(f.await, f).message)
  end)

  it("may wait in a task, and others go on", function()
    local log = {}
    fork_map.run(function()
      local other = fork_map.task(function() log[#log + 1] = "other" end)
      local f = inline:spawn(function()
        fork_map.yield()
        log[#log + 1] = tostring(fork_map.worker().index)
        return fork_map.with {}(give, 1)
      end)
      log[#log + 1] = "after"
      assert.equal(1, f:await())
      assert.is_nil(fork_map.worker())
      other:await()
    end)
    assert.same({ "other", "nil", "after" }, log)
  end)

  it("is cancelled with the task that it runs in", function()
    local f
    local task = fork_map.task(function()
      f = inline:spawn(function() fork_map.sleep(60) end)
      fork_map.sleep(60)
    end)
    fork_map.engine():step(0)
    task:cancel()
    task:wait()
    assert.same({ "cancelled", "cancelled" }, { task:status(), f:status() })
    assert.equal("cancelled", process.failure(f.await, f).kind)
  end)

  it("leaves nothing in a nursery when its task is closed", function()
    fork_map.run(function()
      fork_map.nursery(function(n)
        local caller = fork_map.task(function() n:spawn(function() fork_map.sleep(60) end) end)
        fork_map.yield()
        assert.equal(1, n:count())
        caller:cancel(0)
        for f in n:results() do
          assert.equal("cancelled", f:status())
        end
      end, { executor = inline })
    end)
  end)

  it("runs what has waited for an argument as a task", function()
    local gate, open = quiet.gate()
    local order = {}
    local f = inline:spawn(function(x)
      order[#order + 1] = "began"
      fork_map.sleep(0)
      return x
    end, gate)
    local g = inline:spawn(function(x) return x end, gate)
    open("value")
    assert.same({}, order)
    assert.same({ "value", "value" }, { f:await(), g:await() })
    local late, open_late = quiet.gate()
    f = inline:spawn(function() fork_map.sleep(60) end, late)
    open_late()
    futures.step_until(fork_map.engine(), function() return f:status() == "running" end, "run")
    assert.is_true(f:cancel())
    f:wait()
    assert.equal("cancelled", f:status())
    late = quiet.gate()
    f = inline:spawn(give, late)
    assert.same({ true, "cancelled" }, { f:cancel(), f:status() })
  end)

  it("refuses what is no function", function()
    assert.matches("^spec/executor_kinds_spec.lua:%d+: fork_map: executor:spawn: a function is",
      futures.misuse(function() inline:spawn(1) end))
    assert.matches('^spec/executor_kinds_spec.lua:%d+: fork_map: nursery:spawn: "x" is no name',
      futures.misuse(fork_map.nursery, function(n) n:spawn("x") end, { executor = inline }))
    assert.matches('fork_map.map: "x:" is no name', futures.misuse(function()
      fork_map.map(1, "x:", { executor = inline })
    end))
    assert.matches("fork_map.map: a function is expected, not a string", futures.misuse(function()
      fork_map.map(1, "string:upper")
    end))
  end)
end)

describe("an executor of others", function()
  quiet.guard(before_each, after_each, 4)

  it("takes no options of calls", function()
    local other = { spawn = function() end }
    for _, make in ipairs {
      function() return fork_map.with { executor = other, timeout = 1 } end,
      function() return fork_map.with { timeout = 1 }:with { executor = other } end,
      function() return fork_map.nursery(give, { executor = other, timeout = 1 }) end,
      function() return fork_map.map(1, give, { executor = other, timeout = 1 }) end,
      function() return (fork_map.imap(1, give, { executor = other, timeout = 1 })) end,
    } do
      assert.matches('fork_map: option "timeout" cannot be used with executor: this one takes no',
        futures.misuse(make), 1, true)
    end
    local view = fork_map.with { timeout = 1 }
    assert.is_truthy(view:with { timeout = math.huge, executor = other })
    assert.is_truthy(fork_map.with { executor = other, workers = 3, on_error = "collect" })
  end)

  it("is sent the code of what it folds", function()
    local add, seen = assert(load "local a, b = ... return a + b"), {}
    local other = { spawn = function(_, name, task)
      seen[#seen + 1] = { name, task.kind, task.first }
      return inline:spawn(name, task)
    end }
    assert.equal(6, fork_map.reduce({ 1, 2, 3 }, add, add, 0, { executor = other }))
    assert.same({ "fork_map.fold:call", "dump", 2 }, seen[2])
    assert.matches('fork_map.reduce: the function captures "seen"', futures.misuse(function()
      fork_map.reduce(1, function() return seen end, add, 0, { executor = other })
    end))
    -- Of several items in a segment, on their way as numbers and as a list with holes.
    local count = assert(load "local a, item = ... return a + (item == nil and 1000 or 1)")
    assert.equal(3000, fork_map.reduce(3000, count, add, 0, { executor = inline }))
    local list = { n = 3000, [1] = 1, [2999] = 1 }
    assert.equal(2998 * 1000 + 2, fork_map.reduce(list, count, add, 0, { executor = other }))
  end)

  it("cannot pass an answer off as something else", function()
    local answer
    local other = { spawn = function()
      return inline:spawn(give, answer)
    end }
    local function reduce(on_error)
      return process.failure(fork_map.reduce, 2, "math:max", math.max, 0,
        { executor = other, on_error = on_error, workers = 1 }).kind
    end
    for _, failure in ipairs {
      5, {}, { index = 1 }, { index = 7, message = "x" }, { index = 1.0, message = "x" },
      { index = 0, message = "x" }, { index = "1", message = "x" },
    } do
      answer = { failure = failure }
      assert.equal("protocol", reduce())
    end
    answer = "text"
    assert.equal("protocol", reduce())
    answer = { failure = { index = 1, message = "again and again" } }
    assert.same({ "error", "protocol" }, { reduce(), reduce("collect") })
  end)

  it("fails a call that it raises for, or gives no future for", function()
    local view = fork_map.with { executor = { spawn = function() error("no room", 0) end } }
    assert.equal("no room", process.failure(view, give).message)
    local gate, open = quiet.gate()
    local f = view:spawn(give, gate)
    open()
    assert.equal("no room", process.failure(f.await, f).message)
    view = fork_map.with { executor = { spawn = function() return 5 end } }
    assert.equal("spawn() of the executor gave a number, not a future",
      process.failure(view, give).message)
    local _, errors = view:map(2, give, { on_error = "collect" })
    assert.same({ 1, 2 }, { errors[1].index, errors[2].index })
  end)

  it("shows its futures through those of views and nurseries", function()
    local engine <close> = fork_map.new { output = "capture" }
    local gate <close> = futures.gate()
    local other = { spawn = function(_, ...) return engine:spawn(...) end }
    local f = fork_map.with { executor = other }:spawn(function()
      print("here")
      gate.wait()
    end)
    assert.same({ "running", process.children()[1] }, { f:status(), f:pid() })
    gate.open()
    f:await()
    assert.equal("here\n", (f:output()))
    assert.is_number(f:usage().wall)
    assert.is_nil(f:pid())
  end)

  it("is asked to end what is cancelled while it is asked to begin", function()
    local told, f, grace = {}, nil, 7
    local other = { spawn = function()
      f:cancel(grace)
      return (fork_map.future(function(seconds) told[#told + 1] = seconds end))
    end }
    local gate, open = quiet.gate()
    f = fork_map.with { executor = other }:spawn(give, gate)
    open()
    fork_map.engine():step(0)
    fork_map.engine():step(0)
    assert.same({ 7 }, told)
    assert.equal("running", f:status())
    f:cancel(0)
    f:wait()
    assert.same({ { 7, 0 }, "cancelled" }, { told, f:status() })
    gate, open = quiet.gate()
    grace, f = nil, fork_map.with { executor = other }:spawn(give, gate)
    open()
    fork_map.engine():step(0)
    fork_map.engine():step(0)
    assert.same({ { 7, 0, 1 }, "running" }, { told, f:status() })
    f:cancel(0)
    f:wait()
  end)

  it("need not tell how many workers it has", function()
    local strict = setmetatable({ spawn = function(_, ...) return inline:spawn(...) end }, {
      __index = function(_, name) error("no field " .. name) end,
    })
    assert.same({ 1, 2, 3, n = 3 }, fork_map.map(3, give, { executor = strict }))
    for _, workers in ipairs { "many", 0, 1.5, give } do
      local other = { workers = workers, spawn = strict.spawn }
      assert.same({ 1, 2, n = 2 }, fork_map.map(2, give, { executor = other }))
    end
  end)

  it("gets two calls for each worker that it says it has", function()
    local n, most = 0, 0
    local settlers = {}
    local other = { workers = 2, spawn = function(_, _, item)
      n = n + 1
      most = math.max(most, n)
      local f, resolve = fork_map.future()
      settlers[#settlers + 1] = function()
        n = n - 1
        resolve(item)
      end
      return f
    end }
    local results = fork_map.run(function()
      local map = fork_map.task(function() return fork_map.map(9, give, { executor = other }) end)
      repeat
        fork_map.yield()
        local settle = table.remove(settlers, 1)
        if settle then settle() end
      until map:poll() ~= nil
      return map:await()
    end)
    assert.same({ 9, 9, 4, 0 }, { results.n, results[9], most, n })
  end)
end)
