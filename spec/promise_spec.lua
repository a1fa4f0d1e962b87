-- SPDX-License-Identifier: MIT
local fork_map = require "fork_map"
local futures = require "support.futures"
local process = require "support.process"
local quiet = require "support.quiet"

describe("fork_map.future()", function()
  quiet.guard(before_each, after_each)

  it("gives a future of the values that it is resolved with, nils included", function()
    local f, resolve, reject = fork_map.future()
    assert.equal("running", f:status())
    assert.equal(0, select("#", f:poll()))
    assert.is_true(resolve(nil, 2, nil))
    assert.same({ nil, 2, nil, n = 3 }, table.pack(f:await()))
    assert.same({ false, false, "done" }, { resolve(1), reject("late"), f:status() })
  end)

  it("fails with the error that it is rejected with", function()
    local f, resolve, reject = fork_map.future()
    local err = setmetatable({ kind = "exit", message = "gone" }, fork_map.Error)
    assert.is_true(reject(err))
    assert.equal(err, process.failure(f.await, f))
    assert.same({ false, "failed" }, { resolve(1), f:status() })
    local g, _, reject_other = fork_map.future()
    local value = {}
    reject_other(value)
    err = process.failure(g.await, g)
    assert.same({ "error", value }, { err.kind, err.value })
  end)

  it("wakes who waits for it, and is the input of others", function()
    local f, resolve = fork_map.future()
    local double = f:map(function(n) return 2 * n end)
    local task = fork_map.task(function() return f:await() end)
    local setter = fork_map.task(function() resolve(21) end)
    assert.same({ 42, 21 }, { double:await(), task:await() })
    setter:await()
  end)

  it("tells a wait that nothing can end", function()
    local f, resolve = fork_map.future()
    local ok, message = pcall(f.await, f)
    assert.is_false(ok)
    assert.matches("would deadlock: nothing is left", message, 1, true)
    assert.is_false(f:wait(0))
    resolve()
  end)

  it("is over at once when it is cancelled and nobody wants to know", function()
    local f, resolve = fork_map.future()
    assert.same({ true, "cancelled", false }, { f:cancel(), f:status(), resolve(1) })
    assert.equal("cancelled", process.failure(f.await, f).kind)
  end)

  it("asks who made it to end, who may still settle it", function()
    local told = {}
    local f, resolve = fork_map.future(function(seconds) told[#told + 1] = seconds end)
    assert.same({ true, false, false }, { f:cancel(60), f:cancel(50), f:cancel(70) })
    assert.equal("running", f:status())
    assert.is_true(resolve("whole"))
    assert.same({ "whole", { 60 } }, { f:await(), told })
    fork_map.engine():step(0)
  end)

  it("is forced when the grace is over", function()
    local told = {}
    local f = fork_map.future(function(seconds) told[#told + 1] = seconds end)
    f:cancel()
    f:cancel(0.001)
    assert.is_true(f:wait())
    assert.same({ "cancelled", { 1, 0 } }, { f:status(), told })
    local g = fork_map.future(function(seconds) told[#told + 1] = seconds end)
    assert.is_true(g:cancel(0))
    assert.same({ "cancelled", { 1, 0, 0 } }, { g:status(), told })
  end)

  it("may be settled by the function that it tells", function()
    local f, resolve, reject
    f, resolve = fork_map.future(function() resolve("partial") end)
    assert.is_true(f:cancel())
    assert.equal("partial", f:await())
    f, resolve, reject = fork_map.future(function() reject("gave up") end)
    f:cancel(0)
    assert.equal("gave up", process.failure(f.await, f).value)
    assert.is_false(resolve())
  end)

  it("reports what that function raises", function()
    local engine <close>, log = futures.new_engine()
    local f = engine:future(function() error("oops") end)
    f:cancel(0)
    assert.same({ "callback: oops", "cancelled" }, { log[1], f:status() })
  end)

  it("is cancelled when its handle is dropped, and when its engine is closed", function()
    local told = {}
    local function note(seconds) told[#told + 1] = seconds end
    local engine = fork_map.new()
    engine:future(note)
    futures.collect(engine)
    assert.same({ 1 }, told)
    local f = engine:future(note)
    engine:close()
    assert.same({ 1, 0, 0 }, told)
    assert.equal("closed", process.failure(f.await, f).kind)
  end)

  it("is nothing in a child", function()
    local f, resolve = fork_map.future()
    assert.is_false(fork_map(function() return resolve(1) end))
    assert.is_true(resolve(2))
    assert.equal(2, f:await())
  end)

  it("refuses what is no function, and an error that is nil", function()
    assert.matches("^spec/promise_spec.lua:%d+: fork_map.future: a function is expected, not a "
      .. "string", futures.misuse(function() fork_map.future("x") end))
    local f, resolve, reject = fork_map.future()
    assert.matches("^spec/promise_spec.lua:%d+: fork_map.future: reject: an error is expected",
      futures.misuse(function() reject() end))
    resolve(f)
  end)
end)
