-- SPDX-License-Identifier: MIT
local fork_map = require "fork_map"
local futures = require "support.futures"
local process = require "support.process"
local quiet = require "support.quiet"
local sys = require "specs_core"

local function double(x)
  return 2 * x
end

local function fail_kind(f)
  local ok, err = pcall(f.await, f)
  assert.is_false(ok)
  return err.kind, err
end

-- Whoever waits for two engines needs this one's descriptor, which stays.
fork_map.engine():pollfd()

describe("fork_map.pool()", function()
  process.guard(before_each, after_each, 9)

  it("calls the handler in a process that stays", function()
    local pool <close> = fork_map.pool(function()
      return sys.getpid()
    end, { max = 1 })
    local pid = pool:call()
    assert.not_equal(sys.getpid(), pid)
    for _ = 1, 20 do
      assert.equal(pid, pool:call())
    end
  end)

  it("gives all the values, their count kept, with nils", function()
    local pool <close> = fork_map.pool(function(...)
      return select("#", ...), ...
    end)
    assert.same({ 4, nil, 1, nil, nil, n = 5 }, table.pack(pool:call(nil, 1, nil, nil)))
    assert.same({ 0, n = 1 }, table.pack(pool:call()))
  end)

  it("sees what was captured when its workers were forked", function()
    local base = 40
    local pool <close> = fork_map.pool(function(x)
      return base + x
    end, { min = 1 })
    base = 0
    assert.equal(42, pool:call(2))
  end)

  it("keeps many calls apart, in any order of their results", function()
    local pool <close> = fork_map.pool(double, { max = 3, start = 0, load = 5 })
    local list = {}
    for i = 1, 500 do
      list[i] = pool:submit(i)
    end
    for i = 500, 1, -1 do
      assert.equal(2 * i, list[i]:await())
    end
    assert.equal(500, pool:stats().done)
  end)

  it("sends values of any size there and back", function()
    local pool <close> = fork_map.pool(function(text, list)
      return #text, text, list
    end)
    local text = ("0123456789abcdef"):rep(300000)
    local n, back, list = pool:call(text, { 1.5, { x = true } })
    assert.equal(#text, n)
    assert.is_true(back == text)
    assert.same({ 1.5, { x = true } }, list)
  end)

  it("sends arguments as they are at the call", function()
    local pool <close> = fork_map.pool(function(t)
      return t[1]
    end, { max = 1 })
    local t = { 1 }
    local f = pool:submit(t)
    t[1] = 2
    assert.equal(1, f:await())
  end)

  it("resolves arguments that are futures", function()
    local pool <close> = fork_map.pool(double)
    local a = pool:submit(4)
    local b = pool:submit(a)
    local c = pool:submit(fork_map.spawn(function() return 1 end))
    assert.equal(16, b:await())
    assert.equal(2, c:await())
    local kind = fail_kind(pool:submit(fork_map.spawn(function() error "no" end)))
    assert.equal("error", kind)
  end)

  it("fails a call with what the handler raised, and goes on", function()
    local pool <close> = fork_map.pool(function(what)
      if what then
        error(what)
      end
      return sys.getpid()
    end, { max = 1 })
    local pid = pool:call()
    local kind, err = fail_kind(pool:submit("oh no"))
    assert.equal("error", kind)
    assert.matches("oh no", err.message)
    assert.matches("^stack traceback:\n\t.*pool_spec", err.traceback)
    assert.not_matches("xpcall", err.traceback)
    assert.equal(2, err.index)
    local _, other = fail_kind(pool:submit({ code = 7 }))
    assert.same({ code = 7 }, other.value)
    assert.equal(pid, pool:call())
  end)

  it("fails a call whose arguments cannot cross, and names them", function()
    local pool <close> = fork_map.pool(double)
    local kind, err = fail_kind(pool:submit(1, { x = print }))
    assert.equal("encode", kind)
    assert.equal("arg2.x", err.path)
    local _, first = fail_kind(pool:submit(print))
    assert.equal("arg1", first.path)
  end)

  it("fails a call whose result cannot cross, and names it", function()
    local pool <close> = fork_map.pool(function()
      return 1, { f = print }
    end)
    local kind, err = fail_kind(pool:submit())
    assert.equal("encode", kind)
    assert.equal("result2.f", err.path)
  end)

  it("fails a call whose result is too big, and no other", function()
    local pool <close> = fork_map.pool(function(n)
      return ("x"):rep(n)
    end, { max = 1, limits = { result = 70000 } })
    for _, n in ipairs { 71000, 100000, 10 << 20 } do
      local kind, err = fail_kind(pool:submit(n))
      assert.equal("limit", kind)
      assert.equal("result", err.limit)
      assert.equal(60000, #pool:call(60000))
    end
    assert.equal(0, pool:stats().died)
  end)

  it("fails a call that takes too much memory, and no other", function()
    local pool <close> = fork_map.pool(function(n)
      return #("x"):rep(n)
    end, { max = 1, limits = { memory = "8M" } })
    local kind, err = fail_kind(pool:submit(50 << 20))
    assert.equal("limit", kind)
    assert.equal("memory", err.limit)
    assert.equal(10, pool:call(10))
    assert.equal(0, pool:stats().died)
  end)

  it("ends a call that takes too much processor time", function()
    local pool <close> = fork_map.pool(function(spins)
      while spins do end
      return 1
    end, { max = 1, limits = { cpu = 0.05 } })
    assert.equal(1, pool:call(false))
    local kind, err = fail_kind(pool:submit(true))
    assert.equal("limit", kind)
    assert.equal("cpu", err.limit)
    assert.equal(1, pool:call(false))
  end)

  it("speaks by the codec that is asked for", function()
    for _, codec in ipairs { "json", "lua", "auto" } do
      local pool <close> = fork_map.pool(function(x)
        return x
      end, { codec = codec })
      assert.same({ a = { 1, 2, 3 } }, pool:call { a = { 1, 2, 3 } })
    end
    local pair = {
      encode = function(packed) return tostring(packed.n) .. ":" .. tostring(packed[1]) end,
      decode = function(text) return { text, n = 1 } end,
    }
    local pool <close> = fork_map.pool(function(x)
      return x
    end, { codec = pair })
    assert.equal("1:1:hello", pool:call("hello"))
  end)

  it("gives each call its own random numbers when there is a seed", function()
    local function numbers(max)
      local pool <close> = fork_map.pool(function()
        return math.random(1 << 40)
      end, { seed = 7, max = max, start = 0 })
      return pool:map(20)
    end
    assert.same(numbers(1), numbers(3))
  end)

  it("runs init before the first call and exit after the last", function()
    local phone <close> = futures.telephone()
    local ready
    local pool = fork_map.pool(function()
      return ready
    end, {
      max = 1, keep_fds = "all", init = function() ready = "yes" end,
      exit = function() phone.tell "bye" end,
    })
    assert.equal("yes", pool:call())
    pool:close()
    assert.equal("bye", phone.hear())
  end)

  it("tells a handler where it runs", function()
    local pool <close> = fork_map.pool(function()
      return fork_map.worker()
    end, { max = 1 })
    local first, second = pool:call(), pool:call()
    assert.equal(1, first.index)
    assert.equal(2, second.index)
    assert.equal(1, second.attempt)
    assert.equal(first.pid, second.pid)
  end)

  it("hands events to on_event, before the call's result", function()
    local seen = {}
    local pool <close> = fork_map.pool(function(n)
      for i = 1, n do
        fork_map.emit { i }
      end
      return n
    end, { max = 1, on_event = function(value, index)
      seen[#seen + 1] = index .. ":" .. value[1]
    end })
    local f = pool:submit(3):on_settle(function() seen[#seen + 1] = "settled" end)
    f:await()
    pool:call(1)
    assert.same({ "1:1", "1:2", "1:3", "settled", "2:1" }, seen)
    assert.equal(4, pool:stats().events)
  end)

  it("can be used in tasks and nurseries", function()
    local pool <close> = fork_map.pool(double, { max = 2 })
    local sum = fork_map.run(function()
      local total = 0
      fork_map.nursery(function(n)
        for i = 1, 10 do
          n:start(function()
            local value = pool:call(i)
            total = total + value
          end)
        end
        n:adopt(pool:submit(1))
      end)
      return total
    end)
    assert.equal(110, sum)
  end)

  it("can be made in a view and in an engine of its own", function()
    local engine <close> = fork_map.new { name = "mine" }
    local pool <close> = engine:pool(function() error "x" end)
    local _, err = fail_kind(pool:submit())
    assert.equal("mine", err.name)
    local other <close> = fork_map.with({ name = "view" }):pool(function() error "x" end)
    _, err = fail_kind(other:submit())
    assert.equal("view", err.name)
  end)

  it("takes a handler by its name", function()
    local pool <close> = fork_map.pool("string:rep")
    assert.equal("ababab", pool:call("ab", 3))
  end)

  it("keeps no descriptor of the host", function()
    local reader, writer = sys.pipe()
    local pool <close> = fork_map.pool(function()
      return (sys.fds()[writer])
    end, { max = 1 })
    assert.matches("pipe", sys.fds()[writer])
    assert.not_matches("pipe", pool:call() or "closed")
    sys.close(reader)
    sys.close(writer)
  end)

  it("can have a pool inside of a worker", function()
    local pool <close> = fork_map.pool(function(x)
      local inner <close> = fork_map.pool(double, { max = 1 })
      return inner:call(x) + 1
    end, { max = 1 })
    assert.equal(9, pool:call(4))
    assert.equal(11, pool:call(5))
  end)

  it("is of no use in a child", function()
    local pool <close> = fork_map.pool(double)
    pool:call(1)
    local kind = fork_map(function()
      local ok, err = pcall(pool.submit, pool, 1)
      return not ok and err.kind
    end)
    assert.equal("closed", kind)
  end)
end)

describe("a pool with a template #not_portable", function()
  quiet.guard(before_each, after_each, 8)

  for _, from in ipairs { "exec", "fork" } do
    it("has its workers forked off it, from = " .. from, function()
      local engine <close> = fork_map.new()
      local template <close> = engine:template { from = from }
      template:send_arg "ab"
      local pool <close> = fork_map.pool("string:rep", { template = template, max = 2 })
      assert.equal("ababab", pool:call(3))
      assert.equal("ab", pool:call(1))
      pool:close()
    end)

    it("replaces those that die, from = " .. from, function()
      local engine <close> = fork_map.new()
      local template <close> = engine:template { from = from }
      local pool <close> = fork_map.pool {
        template = template, max = 1, init = load "base = 5",
      }
      local add = load "return ... + base"
      assert.equal(9, pool:spawn(add, 4):await())
      local kind, err = fail_kind(pool:spawn(load "os.exit(3)"))
      assert.same({ "exit", 3 }, { kind, err.exit_code })
      assert.equal(7, pool:spawn(add, 2):await())
    end)
  end

  it("refuses functions that cannot travel", function()
    local engine <close> = fork_map.new()
    local template <close> = engine:template { from = "fork" }
    for _, name in ipairs { "handler", "init", "exit" } do
      local opts = { template = template }
      local function captures()
        return opts
      end
      if name ~= "handler" then
        opts[name] = captures
      end
      local ok, text = pcall(fork_map.pool, name == "handler" and captures or "string:rep", opts)
      assert.is_false(ok)
      assert.matches(name .. ': the function captures "opts"', text)
    end
    local ok, text = pcall(fork_map.pool, "string:rep", { template = {} })
    assert.is_false(ok)
    assert.matches('option "template" must be', text)
  end)
end)

describe("handlers that yield", function()
  process.guard(before_each, after_each, 9)

  it("serve as many calls at once as the load allows", function()
    local at_once, most = 0, 0
    local pool <close> = fork_map.pool(function()
      at_once = at_once + 1
      most = math.max(most, at_once)
      fork_map.sleep(0.01)
      at_once = at_once - 1
      return most
    end, { max = 1, load = 4 })
    assert.equal(4, math.max(table.unpack(pool:map(12))))
  end)

  it("may yield by themselves, sleep, call children and await futures", function()
    local pool <close> = fork_map.pool(function(x)
      coroutine.yield()
      fork_map.yield()
      fork_map.sleep(0.001)
      local y = fork_map(function() return x + 1 end)
      local z = fork_map.spawn(function() return y + 1 end):await()
      return z, fork_map.worker().index
    end, { max = 1, load = 3 })
    local list = {}
    for i = 1, 9 do
      list[i] = pool:submit(i)
    end
    for i = 1, 9 do
      assert.same({ i + 2, i }, { list[i]:await() })
    end
  end)

  it("may raise after they have yielded", function()
    local pool <close> = fork_map.pool(function(x)
      fork_map.yield()
      error("late " .. x)
    end, { max = 1 })
    local _, err = fail_kind(pool:submit(1))
    assert.matches("late 1", err.message)
  end)

  it("may run tasks and nurseries", function()
    local pool <close> = fork_map.pool(function(x)
      return fork_map.run(function()
        return fork_map.nursery(function(n)
          local a = n:start(function() return x end)
          local b = n:spawn(function() return x end)
          return a:await() + b:await()
        end)
      end)
    end, { max = 1 })
    assert.same({ 2, 4, 6, n = 3 }, pool:map(3))
  end)
end)

describe("pool:map()", function()
  process.guard(before_each, after_each, 9)

  it("gives results in the order of the list, with nils", function()
    local pool <close> = fork_map.pool(function(item, index)
      if item ~= 3 then
        return item * 10 + index
      end
    end, { max = 2, start = 0 })
    assert.same({ 11, 22, nil, 44, n = 4 }, pool:map { 1, 2, 3, 4 })
    assert.same({ n = 0 }, pool:map {})
    local results = pool:map(300)
    assert.equal(300 * 10 + 300, results[300])
  end)

  it("raises the first failure with what there is", function()
    local pool <close> = fork_map.pool(function(x)
      if x == 3 then
        error "three"
      end
      return x
    end, { max = 1, load = 1 })
    local ok, err = pcall(pool.map, pool, 100)
    assert.is_false(ok)
    assert.equal(3, err.index)
    assert.same({ 1, 2 }, { err.partial[1], err.partial[2] })
    assert.equal(5, pool:call(5))
  end)

  it("collects failures when it is asked to", function()
    local pool <close> = fork_map.pool(function(x)
      if x % 2 == 0 then
        error "even"
      end
      return x
    end)
    local results, errors = pool:map(4, { on_error = "collect" })
    assert.same({ 1, nil, 3, nil, n = 4 }, results)
    assert.matches("even", errors[2].message)
    assert.matches("even", errors[4].message)
  end)
end)

describe("a pool without a handler", function()
  process.guard(before_each, after_each, 9)

  it("runs functions that capture nothing, and functions by name", function()
    local pool <close> = fork_map.pool { max = 1 }
    assert.equal(7, pool:spawn(function(a, b) return a + b end, 3, 4):await())
    assert.equal("xx", pool:spawn("string:rep", "x", 2):await())
    assert.equal(2, pool.workers * 2)
    local _, err = fail_kind(pool:spawn("no.such.module:fn"))
    assert.matches("no.such.module", err.message)
  end)

  it("refuses functions that capture something, and names it", function()
    local pool <close> = fork_map.pool {}
    local captured = 1
    local ok, text = pcall(pool.spawn, pool, function() return captured end)
    assert.is_false(ok)
    assert.matches('captures "captured"', text)
  end)

  it("and one with a handler say what to use instead", function()
    local plain <close> = fork_map.pool {}
    local ok, text = pcall(plain.submit, plain, 1)
    assert.is_false(ok)
    assert.matches("use pool:spawn", text)
    local pool <close> = fork_map.pool(double)
    ok, text = pcall(pool.spawn, pool, double)
    assert.is_false(ok)
    assert.matches("use pool:submit", text)
  end)
end)
