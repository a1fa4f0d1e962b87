-- SPDX-License-Identifier: MIT
-- Workers that die, are ended, retire or cannot be started: each call has exactly
-- one outcome, and only what a worker had begun is touched by its end.

local fork_map = require "fork_map"
local futures = require "support.futures"
local process = require "support.process"
local sys = require "specs_core"

local ALL = "all"

local function fail_kind(f)
  local ok, err = pcall(f.await, f)
  assert.is_false(ok)
  return err.kind, err
end

-- A handler that says its pid and what it was given, and waits at the gate if that
-- is "wait".
local function new_handler(phone, gate)
  return function(what)
    if what == "die" then
      sys.raise(9)
    elseif what == "exit" then
      os.exit(3)
    elseif what == "quit" then
      os.exit(0)
    elseif what == "wait" then
      phone.tell(sys.getpid())
      gate.wait()
    end
    return what
  end
end

describe("a worker of a pool that dies", function()
  process.guard(before_each, after_each, 8)

  it("fails the call that it was in, and is replaced", function()
    local pool <close> = fork_map.pool(new_handler(), { max = 1 })
    local list = { pool:submit(1), pool:submit "die", pool:submit(2), pool:submit(3) }
    assert.equal(1, list[1]:await())
    local kind, err = fail_kind(list[2])
    assert.equal("signal", kind)
    assert.equal("SIGKILL", err.signame)
    assert.equal(2, err.index)
    assert.equal(2, list[3]:await())
    assert.equal(3, list[4]:await())
    assert.equal(1, pool:stats().died)
  end)

  it("is replaced by one that sees what it saw, also when the snapshot has died #not_portable",
    function()
      local word = "then"
      local pool <close> = fork_map.pool(function(what)
        if what == "die" then
          sys.raise(9)
        end
        return word
      end, { max = 1 })
      assert.equal("then", pool:call())
      word = "now"
      assert.equal("signal", (fail_kind(pool:submit "die")))
      assert.equal("then", pool:call())
      local snapshot = pool.crew.home.template:pid()
      sys.kill(snapshot, 9)
      process.eventually(function()
        fork_map.engine():step(0)
        return process.state(snapshot) == nil
      end, "the snapshot is gone")
      assert.equal("then", pool:call())
      assert.equal("signal", (fail_kind(pool:submit "die")))
      assert.equal("now", pool:call())
    end)

  it("fails with what its end was", function()
    local pool <close> = fork_map.pool(new_handler(), { max = 1 })
    local kind, err = fail_kind(pool:submit "exit")
    assert.equal("exit", kind)
    assert.equal(3, err.exit_code)
    assert.equal("no_result", (fail_kind(pool:submit "quit")))
    assert.equal(5, pool:call(5))
  end)

  it("leaves to others what it was given and has not begun", function()
    local gate <close> = futures.gate()
    local phone <close> = futures.telephone()
    local pool <close> = fork_map.pool(new_handler(phone, gate), {
      max = 1, load = 4, keep_fds = ALL,
    })
    pool:call(0)
    local waiting = pool:submit "wait"
    local others = { pool:submit(1), pool:submit(2), pool:submit(3) }
    local pid = phone.hear_pid()
    sys.kill(pid, 9)
    gate.open()
    assert.equal("signal", (fail_kind(waiting)))
    for i = 1, 3 do
      assert.equal(i, others[i]:await())
    end
  end)

  it("has its call tried again as often as retries say", function()
    local pool <close> = fork_map.pool(function(n)
      local attempt = fork_map.worker().attempt
      if attempt <= n then
        sys.raise(9)
      end
      return attempt
    end, { max = 1, retries = 2, backoff = 0.001 })
    assert.equal(3, pool:call(2))
    local kind, err = fail_kind(pool:submit(3))
    assert.equal("signal", kind)
    assert.equal(3, err.attempt)
    assert.equal(4, pool:stats().retried)
  end)

  it("has its call tried again only for the kinds that are listed", function()
    local pool <close> = fork_map.pool(function(how)
      if fork_map.worker().attempt > 1 then
        return "well"
      elseif how == "die" then
        sys.raise(9)
      end
      error "raised"
    end, { max = 1, retries = 1, retry_on = { "error" } })
    assert.equal("well", pool:call "raise")
    assert.equal("signal", (fail_kind(pool:submit "die")))
  end)
end)

describe("a worker of a pool that cannot begin", function()
  process.guard(before_each, after_each, 8)

  it("fails what waits after some attempts, and what comes later too", function()
    local pool <close> = fork_map.pool(function() end, {
      max = 2, init = function() error "no init" end,
    })
    local a, b = pool:submit(), pool:submit()
    local kind, err = fail_kind(a)
    assert.equal("error", kind)
    assert.matches("no init", err.message)
    assert.equal("error", (fail_kind(b)))
    assert.equal("error", (fail_kind(pool:submit())))
  end)

  it("fails what waits with kind spawn when no process can be made", function()
    local engine <close> = fork_map.new()
    local refuses = true
    fork_map.at_fork { before = function()
      if refuses then
        error "not now"
      end
    end }
    local pool <close> = engine:pool(function(x) return x end)
    local kind, err = fail_kind(pool:submit(1))
    refuses = false
    assert.equal("spawn", kind)
    assert.matches("not now", err.message)
    assert.equal(2, pool:call(2))
  end)
end)

describe("the timeout of a pool", function()
  process.guard(before_each, after_each, 8)

  it("ends the call that takes too long, and gives the rest to others", function()
    local pool <close> = fork_map.pool(function(spins)
      while spins do end
      return 1
    end, { max = 1, load = 3, timeout = 0.05, grace = 0.01 })
    local long = pool:submit(true)
    local rest = { pool:submit(false), pool:submit(false) }
    local kind, err = fail_kind(long)
    assert.equal("timeout", kind)
    assert.matches("timeout of 0.05 s", err.message)
    assert.equal(1, rest[1]:await())
    assert.equal(1, rest[2]:await())
  end)

  it("does not count the time that a call waits", function()
    local pool <close> = fork_map.pool(function()
      sys.sleep(0.03)
      return 1
    end, { max = 1, timeout = 0.1 })
    local list = {}
    for i = 1, 6 do
      list[i] = pool:submit()
    end
    for i = 1, 6 do
      assert.equal(1, list[i]:await())
    end
  end)
end)

describe("cancel() of a pool's call", function()
  process.guard(before_each, after_each, 8)

  it("takes it out of the queue, or back from its worker", function()
    local gate <close> = futures.gate()
    local phone <close> = futures.telephone()
    local pool <close> = fork_map.pool(new_handler(phone, gate), { max = 1, keep_fds = ALL })
    pool:call(0)
    local running = pool:submit "wait"
    local given, queued = pool:submit(1), pool:submit(2)
    local pid = phone.hear_pid()
    assert.equal("running", running:status())
    assert.equal(pid, running:pid())
    assert.equal("queued", given:status())
    assert.equal("queued", queued:status())
    assert.is_true(queued:cancel())
    assert.is_true(given:cancel())
    assert.is_false(given:cancel())
    assert.equal("cancelled", given:status())
    gate.open()
    assert.equal("wait", running:await())
    assert.equal(7, pool:call(7))
    assert.equal(0, pool:stats().died)
  end)

  it("ends the worker of one that runs, and nothing else", function()
    local gate <close> = futures.gate()
    local phone <close> = futures.telephone()
    local pool <close> = fork_map.pool(new_handler(phone, gate), {
      max = 1, load = 3, keep_fds = ALL,
    })
    pool:call(0)
    local running = pool:submit "wait"
    local a, b = pool:submit(1), pool:submit(2)
    local pid = phone.hear_pid()
    assert.is_true(running:cancel())
    assert.equal("cancelled", (fail_kind(running)))
    assert.equal("cancelled", running:status())
    assert.equal(1, a:await())
    assert.equal(2, b:await())
    assert.is_true(process.is_gone(pid))
    assert.equal(0, pool:stats().died)
  end)

  it("ends those begun beside it with kind signal, or has them tried again", function()
    local function handler(is_long)
      fork_map.emit "begun"
      if not is_long and fork_map.worker().attempt > 1 then
        return "again"
      end
      fork_map.sleep(1000)
    end
    for retries = 0, 1 do
      local n_begun = 0
      local pool <close> = fork_map.pool(handler, {
        max = 1, load = 2, retries = retries, on_event = function() n_begun = n_begun + 1 end,
      })
      local first, beside = pool:submit(true), pool:submit(false)
      while n_begun < 2 do
        first:wait(0.01)
      end
      assert.is_true(first:cancel())
      assert.equal("cancelled", (fail_kind(first)))
      if retries == 1 then
        assert.equal("again", beside:await())
      else
        local kind, err = fail_kind(beside)
        assert.equal("signal", kind)
        assert.matches("another call, which was cancelled", err.message)
      end
    end
  end)

  it("lets one that hears of it come to its end", function()
    local phone <close> = futures.telephone()
    local pool <close> = fork_map.pool(function()
      fork_map.cancelled()
      phone.tell "here"
      while not fork_map.cancelled() do
        sys.sleep(0.001)
      end
      return "tidy"
    end, { max = 1, grace = 10, keep_fds = ALL })
    local f = pool:submit()
    repeat
      f:wait(0.001)
    until f:status() == "running"
    assert.equal("here", phone.hear())
    assert.is_true(f:cancel())
    assert.equal("tidy", f:await())
  end)

  it("comes with the collection of its future", function()
    local pool <close> = fork_map.pool(new_handler(), { max = 1 })
    pool:call(1)
    pool:submit(2)
    collectgarbage()
    collectgarbage()
    assert.equal(3, pool:call(3))
    assert.equal(0, pool:stats().queued)
  end)
end)

describe("retirement of a pool's worker", function()
  process.guard(before_each, after_each, 8)

  it("comes after max_tasks calls, and loses none", function()
    local pool <close> = fork_map.pool(function(x)
      return { x, sys.getpid() }
    end, { max = 1, max_tasks = 10, load = 4 })
    local list, pids, n_pids = {}, {}, 0
    for i = 1, 100 do
      list[i] = pool:submit(i)
    end
    for i = 1, 100 do
      local result = list[i]:await()
      assert.equal(i, result[1])
      if not pids[result[2]] then
        pids[result[2]], n_pids = true, n_pids + 1
      end
    end
    assert.equal(10, n_pids)
    assert.equal(0, pool:stats().died)
  end)

  it("comes above max_rss", function()
    local pool <close> = fork_map.pool(function()
      return sys.getpid()
    end, { max = 1, max_rss = 1 })
    assert.not_equal(pool:call(), pool:call())
  end)

  it("comes when the handler asks for it", function()
    local pool <close> = fork_map.pool(function(last)
      if last then
        fork_map.retire()
      end
      return sys.getpid()
    end, { max = 1 })
    local pid = pool:call(false)
    assert.equal(pid, pool:call(true))
    assert.not_equal(pid, pool:call(false))
    assert.equal(1, pool:stats().retired)
    local ok, text = pcall(fork_map.retire)
    assert.is_false(ok)
    assert.matches("not in a worker", text)
  end)
end)

-- Calls that end well, raise, kill their worker, exit or retire, by their numbers.
local function hard_handler(i)
  local draw = i * 2654435761 % 1000
  if draw < 2 then
    sys.raise(9)
  elseif draw < 4 then
    os.exit(1)
  elseif draw < 10 then
    fork_map.retire()
  elseif draw < 30 then
    error("raised " .. i, 0)
  elseif draw < 40 then
    fork_map.yield()
  end
  return i
end

local function expected(i)
  local draw = i * 2654435761 % 1000
  return draw < 2 and "signal" or draw < 4 and "exit"
    or draw >= 10 and draw < 30 and "error" or "value"
end

local function soak(n)
  local pool <close> = fork_map.pool(hard_handler, {
    max = 3, min = 2, load = 4, start = 0, max_tasks = 2000, max_queue = 1000,
  })
  local n_beside = 0
  local list, first = {}, 1
  local function take(i)
    local f = list[i]
    list[i] = nil
    f:wait()
    local fine, result = f:poll()
    local want = expected(i)
    if want == "value" and not fine then
      -- It was begun beside one that has killed its worker.
      assert.is_true(result.kind == "signal" or result.kind == "exit")
      n_beside = n_beside + 1
    elseif want == "value" then
      assert.equal(i, result)
    else
      assert.is_false(fine)
      assert.is_true(result.kind == want or result.kind == "signal" or result.kind == "exit")
    end
  end
  for i = 1, n do
    list[i] = pool:submit(i)
    if i - first > 500 then
      take(first)
      first = first + 1
    end
  end
  for i = first, n do
    take(i)
  end
  local stats = pool:stats()
  assert.equal(n, stats.done + stats.failed)
  assert.equal(0, stats.queued + stats.running)
  assert.is_true(n_beside < n / 100)
end

describe("a pool under load whose workers are killed and retire", function()
  process.guard(before_each, after_each, 12)

  it("gives each of 5,000 calls its one outcome", function()
    soak(5000)
  end)

  it("gives each of 100,000 calls its one outcome #slow", function()
    soak(100000)
  end)

  it("loses no call when workers are killed from outside at any moment", function()
    local pool <close> = fork_map.pool(function(x)
      return x, sys.getpid()
    end, { max = 2, min = 2, load = 8, retries = 100 })
    local _, pid = pool:call(0)
    for round = 1, 30 do
      local list = {}
      for i = 1, 100 do
        list[i] = pool:submit(i)
      end
      for _ = 1, round do
        list[1]:wait(0)
      end
      sys.kill(pid, 9)
      for i = 1, 100 do
        local value
        value, pid = list[i]:await()
        assert.equal(i, value)
      end
    end
    assert.is_true(pool:stats().died > 5)
  end)
end)
