-- SPDX-License-Identifier: MIT
-- What tasks and nurseries leave behind in the loop of an engine: nothing.

local assert = require "luassert"
local async = require "fork_map.async"
local cells = require "fork_map.cell"
local fork_map = require "fork_map"
local futures = require "fork_map.future"
local loops = require "fork_map.loop"
local process = require "support.process"
local sys = require "specs_core"

local M = {}

---Fails unless nothing of an engine goes on: no future, job, timer, ready task,
---callback or process of it is left, and nothing believes that it runs.
function M.check(engine)
  local loop = async.get_loop(engine or fork_map.engine())
  assert.same({
    n_live = 0, n_jobs = 0, has_timer = false, is_busy = false,
    is_in_task = false, is_calling = false, is_scheduling = false, children = {},
  }, {
    n_live = loop.n_live, n_jobs = loop.n_jobs, has_timer = loop.timers:next() ~= nil,
    is_busy = loop:is_busy_in_lua() and true or false, is_in_task = loops.current ~= nil,
    is_calling = loops.is_calling, is_scheduling = loops.is_scheduling,
    children = process.children(),
  })
end

---As process.guard(), and the default engine is quiet after every test, with no
---scope left around the coroutine of the test.
function M.guard(before_each, after_each, n_children)
  after_each(function()
    collectgarbage()
    fork_map.engine():step(0)
    M.check()
    assert.is_nil(loops.get_context().scope)
  end)
  process.guard(before_each, after_each, n_children)
end

---A future that the test settles, by `open(values…)`.
---@return fork_map.Future
---@return fun(...) open
function M.gate(engine)
  local cell = cells.new(async.get_loop(engine or fork_map.engine()), "gate")
  return futures.new(cell), function(...)
    cell:succeed(select("#", ...), { ... })
  end
end

---Call `fn()` from the loop of the default engine after `seconds`.
function M.after(seconds, fn)
  async.get_loop(fork_map.engine()):at(sys.now() + seconds, fn)
end

---Call `fn(engine, seen)` with an engine of its own; what nobody looked at is in
---`seen`, a list of { err =, why = }.
function M.watch(fn)
  local seen = {}
  local engine <close> = fork_map.new {
    on_unhandled = function(err, why)
      seen[#seen + 1] = { err = err, why = why }
    end,
  }
  fn(engine, seen)
  collectgarbage()
  collectgarbage()
  engine:step(0)
  M.check(engine)
end

return M
