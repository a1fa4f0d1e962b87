-- SPDX-License-Identifier: MIT
-- What every executor has to do.  A new one is a row of EXECUTORS.
local channels = require "fork_map.channel"
local fork_map = require "fork_map"
local futures = require "support.futures"
local process = require "support.process"
local quiet = require "support.quiet"
local server = require "fork_map.remote_server"
local sys = require "specs_core"

-- Functions that can go anywhere: specs have an _ENV of their own, chunks have none.
local function fn(text)
  return assert(load(text, "=chunk"))
end

local GIVE = fn "return ..."
local SQUARE = fn "local x = ... return x * x"
local FAIL = fn "error(...)"
local SPIN = fn "while true do end"
local ODD_ONLY = fn "local x = ... if x % 2 == 0 then error('even', 0) end return x"

-- Somebody else's executor: it knows nothing but fork_map.future().
local function new_foreign(engine)
  local view = fork_map.with { executor = engine }
  return { workers = 2, spawn = function(_, call, ...)
    local inner = view:spawn(call, ...)
    local f, resolve, reject = fork_map.future(function(seconds) inner:cancel(seconds) end)
    local function settle(ok, ...)
      return (ok and resolve or reject)(...)
    end
    inner:on_settle(function(g) settle(g:poll()) end)
    return f
  end }
end

-- A template that a child of the engine serves over two pipes.
local function new_remote(engine)
  local there_r, there_w = sys.pipe()
  local back_r, back_w = sys.pipe()
  local f = engine:spawn(function()
    sys.close(there_w)
    sys.close(back_r)
    return server.serve(assert(channels.adopt(there_r, back_w)))
  end)
  while f:status() == "queued" do
    engine:step(0)
  end
  f:detach()
  sys.close(there_r)
  sys.close(back_w)
  return engine:template { connect = { back_r, there_w } }
end

-- has_process: calls may die, and be ended; has_options: it takes options of calls;
-- n_own: processes that it has beside those of calls; is_elsewhere: they are no children
-- of this process.
local EXECUTORS = {
  { name = "an engine", has_process = true, has_options = true,
    open = function(engine) return engine end },
  { name = "a view", has_process = true, has_options = true,
    open = function(engine) return engine:with { name = "view" } end },
  { name = "a view of an executor", has_process = true, has_options = true,
    open = function(engine) return fork_map.with { executor = engine, name = "view" } end },
  { name = "executor.inline", has_options = true,
    open = function() return fork_map.executor.inline end },
  { name = "a view of executor.inline", has_options = true,
    open = function() return fork_map.with { executor = fork_map.executor.inline } end },
  { name = "an executed template #not_portable", n_own = 1, has_process = true, has_options = true,
    open = function(engine) return engine:template { from = "exec" } end },
  { name = "a snapshot template #not_portable", n_own = 1, has_process = true, has_options = true,
    open = function(engine) return engine:template { from = "fork" } end },
  { name = "a pool", has_process = true, has_options = true, is_elsewhere = true,
    open = function(engine) return engine:pool { max = 2, start = 0 } end },
  { name = "an executor of others", has_process = true, open = new_foreign },
  { name = "a template behind a connection", has_process = true, has_options = true,
    is_elsewhere = true, open = new_remote },
}

for _, row in ipairs(EXECUTORS) do
  describe("as an executor, " .. row.name, function()
    local engine, executor, opts

    -- The default engine has the descriptor that it keeps for waits for several.
    setup(function()
      fork_map.engine():pollfd()
    end)
    -- Before the guard looks.
    after_each(function()
      engine:close()
      engine, executor, opts = nil, nil, nil
    end)
    quiet.guard(before_each, after_each, 16)
    before_each(function()
      engine = fork_map.new()
      executor = row.open(engine)
      opts = { executor = executor, workers = 2 }
    end)

    -- With the options of the verb.
    local function with(more)
      for name, value in pairs(more) do
        opts[name] = value
      end
      return opts
    end

    it("gives a future of all values, nils included", function()
      local f = executor:spawn(GIVE, nil, 2, nil)
      assert.same({ nil, 2, nil, n = 3 }, table.pack(f:await()))
      assert.same({ "done", 0 }, { f:status(), select("#", executor:spawn(GIVE):await()) })
    end)

    it("gives equal values", function()
      local values = { 1.0, 1, -0.5, math.mininteger, "\0\xff", { { a = { true } } } }
      local given = executor:spawn(GIVE, values):await()
      assert.same(values, given)
      assert.same({ "float", "integer" }, { math.type(given[1]), math.type(given[2]) })
      assert.is_false(rawequal(values, given))
    end)

    it("does not raise what the function raises", function()
      local f = executor:spawn(FAIL, { code = 7 })
      local err = process.failure(f.await, f)
      assert.same({ "error", 7, "failed" }, { err.kind, err.value.code, f:status() })
      assert.matches("traceback", err.traceback)
      f = executor:spawn(FAIL, "boom", 0)
      err = process.failure(f.await, f)
      assert.same({ "boom", "boom" }, { err.message, err.value })
    end)

    it("takes arguments that are futures", function()
      local two = executor:spawn(GIVE, 2)
      assert.equal(16, executor:spawn(SQUARE, executor:spawn(SQUARE, two)):await())
      local gate, open = quiet.gate()
      local f = executor:spawn(GIVE, 1, gate, 3)
      assert.is_false(f:wait(0))
      open("late")
      assert.same({ 1, "late", 3 }, { f:await() })
    end)

    it("fails as an argument fails", function()
      local bad = executor:spawn(FAIL, "boom", 0)
      local f = executor:spawn(GIVE, bad)
      assert.equal("boom", process.failure(f.await, f).message)
    end)

    it("calls many at once", function()
      local fs = {}
      for i = 1, 20 do
        fs[i] = executor:spawn(SQUARE, i)
      end
      local sum = 0
      for _, square in pairs(fork_map.all(fs):await()) do
        sum = sum + square
      end
      assert.equal(2870, sum)
    end)

    if row.has_process then
      it("fails with the kind of the death", function()
        local f = executor:spawn(fn "os.exit(3)")
        local err = process.failure(f.await, f)
        assert.same({ "exit", 3 }, { err.kind, err.exit_code })
        f = executor:spawn(fn "os.execute('kill -KILL $PPID') while true do end")
        err = process.failure(f.await, f)
        assert.same({ "signal", "SIGKILL" }, { err.kind, err.signame })
      end)

      it("can be cancelled, whatever the call does", function()
        local f = executor:spawn(SPIN)
        assert.is_false(f:wait(0))
        assert.same({ true, false }, { f:cancel(0), f:cancel(0) })
        f:wait()
        assert.equal("cancelled", f:status())
      end)

      it("ends the call of a future that was dropped", function()
        executor:spawn(SPIN)
        collectgarbage()
        collectgarbage()
        if row.is_elsewhere then -- it runs no other before
          assert.equal(4, executor:spawn(SQUARE, 2):await())
          return
        end
        futures.step_until(fork_map.engine(), function()
          engine:step(0)
          return #process.children() == (row.n_own or 0)
        end, "the end of the call")
      end)
    end

    describe("of a view", function()
      it("gives the values, or raises the error", function()
        local view = fork_map.with(opts)
        assert.same({ 1, nil, 3 }, { view(GIVE, 1, nil, 3) })
        assert.equal("boom", process.failure(view, FAIL, "boom", 0).message)
        assert.equal(9, view:spawn(SQUARE, 3):await())
      end)

      it("takes the name of a function of a module", function()
        local view = fork_map.with(opts)
        assert.equal("ABC", view("string:upper", "abc"))
        assert.equal("cba", view:spawn("string:reverse", "abc"):await())
        assert.matches("module 'no.such' not found",
          process.failure(view, "no.such:thing").message, 1, true)
        assert.matches('^spec/executor_spec.lua:%d+: fork_map: "x" is no name of the form',
          futures.misuse(function() view("x") end))
        assert.matches('^spec/executor_spec.lua:%d+: fork_map.spawn: a function is expected',
          futures.misuse(function() view:spawn(1) end))
      end)

      it("suspends a task", function()
        local view = fork_map.with(opts)
        local sum = fork_map.run(function()
          local a = fork_map.task(function() return view(SQUARE, 3) end)
          return view(SQUARE, 4) + a:await()
        end)
        assert.equal(25, sum)
      end)
    end)

    describe("of a nursery", function()
      it("runs what is spawned there", function()
        local sum = fork_map.nursery(function(n)
          local a, b = n:spawn(SQUARE, 3), n:spawn(SQUARE, 4)
          assert.equal("X", n:spawn("string:upper", "x"):await())
          return n:spawn(fn "local a, b = ... return a + b", a, b):await()
        end, { executor = executor })
        assert.equal(25, sum)
      end)

      it("ends with its first failure", function()
        local settled = {}
        local err = process.failure(fork_map.nursery, function(n)
          local bad = n:spawn(FAIL, "boom", 0)
          settled[1] = row.has_process and n:spawn(SPIN) or n:spawn(GIVE)
          bad:wait()
          n:join()
        end, { executor = executor, grace = row.has_options and 0.1 or nil })
        assert.equal("boom", err.message)
        assert.is_true(settled[1]:wait(0))
      end)

      it("is told its results, and no more at once than it may have", function()
        local order = {}
        fork_map.nursery(function(n)
          for i = 1, 5 do n:spawn(GIVE, i) end
          n:close()
          for f in n:results() do order[#order + 1] = f:await() end
        end, { executor = executor, max_active = 1 })
        assert.same({ 1, 2, 3, 4, 5 }, order)
      end)

      if row.has_process then
        it("cancels it, also by its deadline", function()
          fork_map.nursery(function(n)
            local f = n:spawn(SPIN)
            f:wait(0)
            n:cancel(0)
          end, { executor = executor })
          local err = process.failure(fork_map.nursery, function(n)
            n:spawn(SPIN)
            n:join()
          end, { executor = executor, deadline = 0.01, grace = row.has_options and 0 or nil })
          assert.equal("timeout", err.kind)
        end)
      end
    end)

    describe("of a map", function()
      it("gives the results in order", function()
        local results = fork_map.map({ 5, 3, 1, 4 }, SQUARE, opts)
        assert.same({ 25, 9, 1, 16, n = 4 }, results)
        assert.same({ n = 0 }, fork_map.map({}, SQUARE, opts))
        assert.same({ 1, 4, 9, n = 3 }, fork_map.map(3, SQUARE, opts))
        assert.same({ "A", "B", n = 2 }, fork_map.map({ "a", "b" }, "string:upper", opts))
      end)

      it("hands over the item and its number", function()
        local pairs_of = fork_map.map({ "a", nil, "c", n = 3 }, fn "return { ... }", opts)
        assert.same({ { "a", 1 }, { nil, 2 }, { "c", 3 }, n = 3 }, pairs_of)
      end)

      it("raises the first failure, with its index and what there was", function()
        opts.workers = 1 -- so that one of the first two has ended before the third begins
        local err = process.failure(fork_map.map, { 1, 1, 4, 5 }, ODD_ONLY, opts)
        assert.same({ "error", "even", 3, 1 }, { err.kind, err.message, err.index,
          err.partial[1] or err.partial[2] })
      end)

      it("collects errors", function()
        local results, errors = fork_map.map(5, ODD_ONLY, with { on_error = "collect" })
        assert.same({ 1, nil, 3, nil, 5, n = 5 }, results)
        assert.same({ 2, 4, "even" }, { errors[2].index, errors[4].index, errors[4].message })
        assert.is_nil(errors[1])
        assert.is_nil((select(2, fork_map.map(1, ODD_ONLY, opts))))
      end)

      it("goes through a list or an iterator", function()
        local seen = {}
        for i, value, err in fork_map.imap({ 1, 2, 3 }, ODD_ONLY, opts) do
          seen[#seen + 1] = { i, value, err and err.message }
        end
        assert.same({ { 1, 1 }, { 2, nil, "even" }, { 3, 3 } }, seen)
        local words = {}
        for i, word in fork_map.imap(("many a word"):gmatch("%a+"), fn "return (...):upper()",
          opts) do
          words[i] = word
        end
        assert.same({ "MANY", "A", "WORD" }, words)
        local sum = 0
        for _, square in fork_map.imap_unordered(4, SQUARE, opts) do sum = sum + square end
        assert.equal(30, sum)
        assert.equal(3, fork_map.each(("many a word"):gmatch("%a+"), GIVE, opts))
        assert.equal(4, fork_map.each(4, GIVE, opts))
      end)

      it("reads an iterator no further ahead than it may, and lets the rest go", function()
        local n = 0
        for i in fork_map.imap(function() n = n + 1 return n end, SQUARE,
          with { max_active = 3 }) do
          assert.is_true(n <= i + 2)
          if i == 5 then break end
        end
        assert.is_true(n <= 8)
      end)

      it("finds", function()
        assert.same({ 3, 7 }, { fork_map.find({ 4, 6, 7, 8, 9 }, fn "return ... % 2 == 1",
          with { which = "first" }) })
        assert.is_nil(fork_map.find({ 4, 6 }, fn "return ... % 2 == 1", opts))
      end)

      it("reduces", function()
        local add = fn "local a, b = ... return a + b"
        assert.equal(50, fork_map.reduce({ 20, 5, 9, 15, 1 }, add, add, 0, opts))
        assert.equal(55, fork_map.reduce(10, add, add, 0, opts))
        assert.equal(0, fork_map.reduce({}, add, add, 0, opts))
        assert.equal(7, fork_map.reduce({ 3, 7, 5 }, "math:max", math.max, 0, opts))
      end)

      it("reduces without items that fail, each of which is told", function()
        local step = fn [[
          local acc, item, index = ...
          if item % 2 == 0 then error({ index = index }) end
          acc[#acc + 1] = item
          return acc
        ]]
        local function join(a, b) return table.move(b, 1, #b, #a + 1, a) end
        local err = process.failure(fork_map.reduce, { 1, 2, 3 }, step, join, {}, opts)
        assert.same({ "error", 2, 2 }, { err.kind, err.index, err.value.index })
        assert.matches("chunk:2", err.traceback)
        local all, errors = fork_map.reduce(5, step, join, {}, with { on_error = "collect" })
        assert.same({ 1, 3, 5 }, all)
        assert.same({ 2, 4, nil }, { errors[2].index, errors[4].value.index, errors[1] })
        err = process.failure(fork_map.reduce, 2, fn "return print", join, 0, opts)
        assert.same({ "encode", "result" }, { err.kind, err.path })
      end)

      it("tells its progress and keeps its journal", function()
        local name, states = os.tmpname(), {}
        with { journal = name, progress = function(state) states[#states + 1] = state end }
        assert.same({ 4, 9, n = 2 }, fork_map.map({ 2, 3 }, SQUARE, opts))
        assert.same({ 2, 2, 0 }, { states[#states].done, states[#states].total,
          states[#states].failed })
        assert.same({ 1, 4, 9, n = 3 }, fork_map.map({ 1, 2, 3 }, SQUARE, opts))
        local results, errors = fork_map.map({ 2, 3, "x" }, SQUARE, with { on_error = "collect" })
        assert.same({ 4, 9, 3 }, { results[1], results[2], errors[3].index })
        os.remove(name)
      end)

      it("refuses options of workers, and the wish for none", function()
        for name, value in pairs {
          chunk = 1, isolate = "item", nested = "fork", init = print, exit = print, max_tasks = 1,
          max_rss = 1, on_event = print,
        } do
          assert.matches(('^spec/executor_spec.lua:%%d+: fork_map.map: option "%s" cannot be used '
            .. "with executor"):format(name), futures.misuse(function()
              fork_map.map(1, GIVE, { executor = executor, [name] = value })
            end))
        end
        assert.matches('option "workers" must be at least 1 with executor',
          futures.misuse(fork_map.each, 1, GIVE, { executor = executor, workers = 0 }), 1, true)
      end)

      if row.has_process then
        it("loses one item by a death", function()
          local results, errors = fork_map.map(4, fn "if ... == 2 then os.exit(5) end return ...",
            with { on_error = "collect" })
          assert.same({ 1, 3, 4 }, { results[1], results[3], results[4] })
          assert.same({ "exit", 5, 2 }, { errors[2].kind, errors[2].exit_code, errors[2].index })
        end)

        it("cannot reduce when a call dies", function()
          local err = process.failure(fork_map.reduce, 3, fn "os.exit(6)", GIVE, 0,
            with { on_error = "collect" })
          assert.same({ "exit", 6, nil }, { err.kind, err.exit_code, err.index })
        end)

        it("ends with its deadline, and with the loop over it", function()
          local err = process.failure(fork_map.map, 4, SPIN, with { deadline = 0.01 })
          assert.equal("timeout", err.kind)
          opts.deadline = nil
          for i in fork_map.imap_unordered(4, fn "if ... > 1 then while true do end end", opts) do
            assert.equal(1, i)
            if i == 1 then break end
          end
          local it = fork_map.imap(2, SPIN, opts)
          it:close()
          assert.is_nil(it())
        end)
      end
    end)
  end)
end
