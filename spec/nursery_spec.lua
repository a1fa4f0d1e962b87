-- SPDX-License-Identifier: MIT
local fork_map = require "fork_map"
local process = require "support.process"
local quiet = require "support.quiet"
local sys = require "specs_core"

-- How a nursery can be held: by a body, or by a variable of a block.
local FORMS = {
  body = function(fn, opts)
    return fork_map.nursery(fn, opts)
  end,
  block = function(fn, opts)
    local n <close> = fork_map.nursery(opts)
    return fn(n)
  end,
}

-- Where it can stand.
local PLACES = {
  ["at top level"] = function(fn)
    return fn()
  end,
  ["in a coroutine at top level"] = function(fn)
    local results = table.pack(coroutine.wrap(function()
      return pcall(fn)
    end)())
    if not results[1] then
      error(results[2], 0)
    end
    return table.unpack(results, 2, results.n)
  end,
  ["in a task"] = function(fn)
    return fork_map.task(fn):await()
  end,
}

local quick = { grace = 0 }

-- What is raised, when nothing is left the moment that the nursery was left.
local function failure(form, fn, opts)
  local ok, err = pcall(FORMS[form], fn, opts or quick)
  assert.is_false(ok)
  assert.same({}, process.children())
  return err
end

for form, open in pairs(FORMS) do
  for place, call in pairs(PLACES) do
    describe("a nursery for a " .. form .. " " .. place, function()
      quiet.guard(before_each, after_each, 4)

      it("gives what its body returns, after all in it has ended", function()
        local order = {}
        local results = table.pack(call(function()
          return open(function(n)
            n:start(function()
              fork_map.sleep(0.002)
              order[#order + 1] = "task"
            end)
            n:spawn(sys.sleep, 0.005):on_settle(function()
              order[#order + 1] = "callback"
            end)
            return nil, "b", nil
          end)
        end))
        assert.same({ nil, "b", nil, n = 3 }, results)
        assert.same({}, process.children())
        table.sort(order)
        assert.same({ "callback", "task" }, order)
      end)

      it("raises the failure of a process and cancels the others", function()
        local events = {}
        local err = process.failure(call, function()
          return open(function(n)
            n:spawn(sys.sleep, 60)
            n:start(function()
              events.task = select(2, pcall(fork_map.sleep, 60)).kind
            end)
            fork_map.yield() -- the task begins
            n:spawn(function() os.exit(3) end)
            local ok, body = pcall(fork_map.sleep, 60)
            events.body = { ok, body.kind }
            error(body)
          end, quick)
        end)
        assert.equal(3, err.exit_code)
        assert.is_nil(err.others)
        assert.same({ task = "cancelled", body = { false, "cancelled" } }, events)
        assert.same({}, process.children())
      end)

      it("raises the failure of a task and cancels the others", function()
        local f
        local err = process.failure(call, function()
          return open(function(n)
            f = n:spawn(sys.sleep, 60)
            n:start(error, { code = 42 })
          end, quick)
        end)
        assert.equal(42, err.value.code)
        assert.equal("cancelled", f:status())
      end)

      it("raises what its body raises, as it is, and cancels all", function()
        local raised, f = { "raised" }, nil
        local ok, err = pcall(call, function()
          return open(function(n)
            f = n:start(fork_map.sleep, 60)
            n:spawn(sys.sleep, 60)
            error(raised)
          end, quick)
        end)
        assert.is_false(ok)
        assert.equal(raised, err.value or err)
        assert.equal("cancelled", f:status())
      end)

      it("raises what a callback of a future in it raises", function()
        local err = process.failure(call, function()
          return open(function(n)
            n:spawn(sys.sleep, 60)
            n:spawn(function() end):on_settle(function() error("in callback", 0) end)
          end, quick)
        end)
        assert.equal("in callback", err.value)
      end)

      it("raises that its time is over", function()
        local err = process.failure(call, function()
          return open(function(n)
            n:spawn(sys.sleep, 60)
            n:start(fork_map.sleep, 60)
            fork_map.sleep(60)
          end, { deadline = 0.02, grace = 0 })
        end)
        assert.equal("timeout", err.kind)
        err = process.failure(call, function()
          return open(function(n)
            n:spawn(sys.sleep, 60)
          end, { deadline = 0.02, grace = 0 })
        end)
        assert.equal("timeout", err.kind)
      end)

      it("cancels all in it and the waits of its body", function()
        local kind
        call(function()
          return open(function(n)
            n:spawn(sys.sleep, 60)
            n:start(fork_map.sleep, 60)
            n:cancel()
            kind = select(2, pcall(fork_map.sleep, 60)).kind
          end, quick)
        end)
        assert.equal("cancelled", kind)
      end)

      it("waits for all when its body breaks out of a loop over results", function()
        local seen, count = 0, 0
        call(function()
          return open(function(n)
            for _ = 1, 3 do
              n:start(function()
                fork_map.yield()
                count = count + 1
              end)
            end
            for _ in n:results() do
              seen = seen + 1
              if seen == 1 then
                break
              end
            end
          end)
        end)
        assert.same({ 1, 3 }, { seen, count })
      end)
    end)
  end
end

describe("fork_map.nursery()", function()
  quiet.guard(before_each, after_each, 8)

  it("tells in its failure of the others that failed after it", function()
    local gate, open = quiet.gate()
    local err = failure("body", function(n)
      n:start(function() error("first", 0) end)
      for i = 1, 3 do
        n:start(function()
          pcall(gate.wait, gate)
          error("other " .. i, 0)
        end)
      end
      fork_map.sleep(60)
    end)
    assert.equal("first", err.value)
    local others = {}
    for i, other in ipairs(err.others) do
      others[i] = other.value
    end
    table.sort(others)
    assert.same({ "other 1", "other 2", "other 3" }, others)
    open()
  end)

  it("tells of what its body raised after a failure", function()
    local err = failure("body", function(n)
      n:start(error, "first")
      pcall(fork_map.sleep, 60)
      error("body", 0)
    end)
    assert.equal("first", err.value)
    assert.equal("body", err.others[1].value)
  end)

  it("tells nobody in particular of others when what it raises cannot carry them", function()
    quiet.watch(function(engine, seen)
      local ok, err = pcall(engine.nursery, engine, function(n)
        n:start(function()
          pcall(engine.sleep, engine, 60)
          error("other", 0)
        end)
        engine:yield()
        error("body", 0)
      end)
      assert.same({ false, "body" }, { ok, err })
      assert.equal(1, #seen)
      assert.equal("other", seen[1].err.value)
    end)
  end)

  it("lets all come to their end with on_error = keep, then raises the first", function()
    local ended = 0
    local err = failure("body", function(n)
      n:start(function() error("first", 0) end)
      n:start(function()
        fork_map.sleep(0.005)
        ended = ended + 1
      end)
      n:spawn(sys.sleep, 0.01):on_settle(function() ended = ended + 1 end)
      fork_map.sleep(0.002)
      error("body", 0)
    end, { on_error = "keep" })
    assert.equal("first", err.value)
    assert.equal("body", err.others[1].value)
    assert.equal(2, ended)
  end)

  it("lets all come to their end with on_error = keep when only its body fails", function()
    local ended = false
    assert.equal("body", failure("body", function(n)
      n:start(function()
        fork_map.sleep(0.002)
        ended = true
      end)
      error("body", 0)
    end, { on_error = "keep" }))
    assert.is_true(ended)
  end)

  it("keeps to its deadline and to cancel() also with on_error = keep", function()
    assert.equal("timeout", failure("body", function(n)
      n:spawn(sys.sleep, 60)
    end, { on_error = "keep", deadline = 0.01, grace = 0 }).kind)
    fork_map.nursery(function(n)
      n:spawn(sys.sleep, 60)
      n:cancel()
    end, { on_error = "keep", grace = 0 })
  end)

  it("returns nothing when cancel() alone has ended its body", function()
    assert.equal(0, select("#", fork_map.nursery(function(n)
      n:cancel()
      fork_map.sleep(60)
      return "never"
    end)))
    assert.equal("value", fork_map.nursery(function(n)
      n:cancel()
      return "value"
    end))
  end)

  it("raises the error of a job that was cancelled for itself", function()
    assert.equal("cancelled", failure("body", function(n)
      local f = n:start(fork_map.sleep, 60)
      f:cancel()
      f:await()
    end).kind)
    fork_map.nursery(function(n)
      n:start(fork_map.sleep, 60):cancel()
    end)
  end)

  it("is cancelled by a callback, a task in it and one outside of it", function()
    for _, how in ipairs { "callback", "inside", "outside", "timer" } do
      local f
      assert.equal(0, select("#", fork_map.nursery(function(n)
        f = n:spawn(sys.sleep, 60)
        if how == "callback" then
          n:spawn(function() end):on_settle(function() n:cancel(0) end)
        elseif how == "inside" then
          n:start(function() n:cancel(0) end)
        elseif how == "outside" then
          fork_map.task(function() n:cancel(0) end)
        else
          quiet.after(0.005, function() n:cancel(0) end)
        end
        f:await()
      end)), how)
      assert.equal("cancelled", f:status())
    end
  end)

  it("forces with cancel(0) what ignores to be asked", function()
    local reader, writer = sys.pipe()
    fork_map.nursery(function(n)
      n:spawn(function()
        fork_map.cancelled()
        sys.write(writer, "x")
        while true do sys.sleep(1) end
      end)
      n:start(function()
        while true do pcall(fork_map.sleep, 60) end
      end)
      sys.read(reader, 1)
      n:cancel(60)
      n:cancel(0)
    end)
    sys.close(reader)
    sys.close(writer)
    quiet.check()
  end)

  it("stops what is added after it was stopped", function()
    local late, began
    local err = failure("body", function(n)
      n:start(error, "first")
      pcall(fork_map.sleep, 60)
      late = { n:spawn(sys.sleep, 60), n:start(function() began = true end) }
    end)
    assert.equal("error", err.kind)
    assert.same({ "cancelled", "cancelled" }, { late[1]:status(), late[2]:status() })
    assert.is_nil(began)
  end)

  it("calls callbacks that were added to what had settled before it is left", function()
    local called = 0
    fork_map.nursery(function(n)
      local f = n:spawn(function() end)
      f:wait()
      fork_map.sleep(0.002)
      f:on_settle(function()
        called = called + 1
        f:on_settle(function() called = called + 1 end)
      end)
    end)
    assert.equal(2, called)
    assert.equal("late", failure("body", function(n)
      local f = n:start(function() end)
      f:wait()
      fork_map.sleep(0.002)
      f:on_settle(function() error("late", 0) end)
    end).value)
  end)

  it("nests, and a deadline holds for what is inside", function()
    local kinds = {}
    local err = failure("body", function(a)
      a:start(fork_map.sleep, 60)
      local _, inner = pcall(fork_map.nursery, function(b)
        b:spawn(sys.sleep, 60)
        local _, innermost = pcall(fork_map.nursery, function(c)
          c:spawn(sys.sleep, 60)
          fork_map.sleep(60)
        end, { deadline = 60, grace = 0 })
        kinds[1] = innermost.kind
        kinds[2] = select(2, pcall(fork_map.sleep, 60)).kind
        error(innermost)
      end, { grace = 0 })
      kinds[3] = inner.kind
      error(inner)
    end, { deadline = 0.02, grace = 0 })
    assert.equal("timeout", err.kind)
    assert.same({ "cancelled", "cancelled", "cancelled" }, kinds)
    quiet.check()
  end)

  it("inside of another raises its own deadline, and the other goes on", function()
    assert.equal("went on", fork_map.nursery(function(n)
      local f = n:start(function() fork_map.sleep(0.05) return "went on" end)
      local _, err = pcall(fork_map.nursery, function(inner)
        inner:start(fork_map.sleep, 60)
      end, { deadline = 0.01 })
      assert.equal("timeout", err.kind)
      return f:await()
    end, { deadline = 60 }))
  end)

  it("is cancelled while it is left by one around it", function()
    local err = failure("body", function(outer)
      outer:start(function()
        fork_map.sleep(0.005)
        error("outer", 0)
      end)
      fork_map.nursery(function(inner)
        inner:start(fork_map.sleep, 60)
        inner:spawn(sys.sleep, 60)
      end, { grace = 0 })
    end)
    assert.equal("outer", err.value)
    assert.is_nil(err.others)
  end)

  it("does not lose its failure when one around it is cancelled as it is left", function()
    local failed
    local err = failure("body", function(outer)
      outer:start(function()
        while not failed do fork_map.yield() end
        error("outer", 0)
      end)
      fork_map.nursery(function(inner)
        inner:start(function()
          pcall(fork_map.sleep, 60)
          while not outer:count() do fork_map.yield() end
        end)
        inner:start(function()
          failed = true
          error("inner", 0)
        end)
      end)
    end)
    local values = { err.value, err.others and err.others[1].value }
    table.sort(values)
    assert.same({ "inner", "outer" }, values)
  end)

  it("is stopped with the task that holds it, asked or forced", function()
    for form, open in pairs(FORMS) do
      for _, grace in ipairs { false, 0, 0.02 } do
        local inside = {}
        local f = fork_map.task(function()
          open(function(n)
            inside[1] = n:spawn(sys.sleep, 60)
            inside[2] = n:start(fork_map.sleep, 60)
            fork_map.sleep(60)
          end, quick)
        end)
        while not inside[2] do fork_map.sleep(0.001) end
        f:cancel(grace or nil)
        f:wait()
        assert.equal("cancelled", f:status(), form)
        assert.same({}, process.children())
        assert.same({ "cancelled", "cancelled" }, { inside[1]:status(), inside[2]:status() })
        quiet.check()
      end
    end
  end)

  it("leaves nothing when its task is forced while it is left", function()
    for _, open in pairs(FORMS) do
      local n_inside
      local f = fork_map.task(function()
        open(function(n)
          n:spawn(function()
            fork_map.cancelled()
            while true do sys.sleep(1) end
          end)
          n:start(function() while true do pcall(fork_map.sleep, 60) end end)
          n_inside = n:count()
        end, { grace = 60 })
      end)
      while not n_inside do fork_map.sleep(0.001) end
      process.eventually(function()
        fork_map.engine():step(0)
        return #process.children() == 1
      end, "the child runs")
      f:cancel(0.05)
      f:wait()
      assert.same({}, process.children())
      quiet.check()
    end
  end)

  it("is left at once, with its error, when a hook of the host raises", function()
    for _, open in pairs(FORMS) do
      local co = coroutine.running()
      local function interrupt()
        debug.sethook(co, function()
          debug.sethook(co)
          error("interrupted!", 0)
        end, "", 1)
      end
      for _, waits in ipairs { true, false } do
        local ok, err = pcall(open, function(n)
          n:spawn(sys.sleep, 60)
          n:start(function() fork_map.sleep(0.002) interrupt() end)
          n:start(function() while true do pcall(fork_map.sleep, 60) end end)
          if waits then
            fork_map.sleep(60)
          end
        end, { grace = 0 })
        assert.same({ false, "interrupted!" }, { ok, err })
        assert.same({}, process.children())
      end
    end
  end)

  it("ends waits of other coroutines that its body has entered", function()
    for _, place in ipairs { "at top level", "in a task" } do
      local kind
      local err = process.failure(PLACES[place], function()
        fork_map.nursery(function(n)
          n:spawn(error, "first")
          coroutine.wrap(function()
            kind = select(2, pcall(fork_map.sleep, 60)).kind
          end)()
        end)
      end)
      assert.equal("first", err.value)
      assert.equal("cancelled", kind)
    end
  end)

  it("says at once that its tasks cannot run below a task", function()
    local f = fork_map.spawn(sys.sleep, 60)
    local err = process.failure(function()
      fork_map.task(function()
        coroutine.wrap(function()
          fork_map.nursery(function(n)
            n:start(function() end)
            n:spawn(function() end)
          end)
        end)()
      end):await()
    end)
    assert.matches("only a task could settle this", err.message)
    f:cancel(0)
    f:wait()
  end)

  it("refuses to begin in a callback", function()
    local messages = {}
    local f = fork_map.spawn(function() end)
    f:on_settle(function()
      messages[1] = select(2, pcall(fork_map.nursery, function() end))
      messages[2] = select(2, pcall(fork_map.nursery))
    end)
    f:wait()
    fork_map.sleep(0.002)
    assert.matches("inside a callback", messages[1], 1, true)
    assert.matches("inside a callback", messages[2], 1, true)
  end)

  it("belongs to the process that made it", function()
    local kinds = fork_map.nursery(function(n)
      local f = n:start(fork_map.sleep, 60)
      local found = n:spawn(function()
        local list = {}
        for _, name in ipairs {
          "spawn", "start", "adopt", "results", "cancel", "close", "join", "count",
        } do
          local ok, err = pcall(n[name], n, function() end)
          list[#list + 1] = ok and "ok" or err.kind
        end
        -- and the child has nurseries of its own
        list[#list + 1] = fork_map.nursery(function(own)
          return own:spawn(function() return "own" end):await()
        end)
        return list
      end):await()
      f:cancel()
      return found
    end)
    assert.same({ "closed", "closed", "closed", "closed", "closed", "closed", "closed",
      "closed", "own" }, kinds)
  end)

  it("refuses options that it does not know and values that it cannot use", function()
    local function message(...)
      return select(2, pcall(fork_map.nursery, ...))
    end
    assert.matches("nursery_spec.lua:%d+: .*unknown option \"dedline\".*deadline",
      select(2, pcall(function() fork_map.nursery(function() end, { dedline = 1 }) end)))
    assert.matches("on_error", message(function() end, { on_error = "collect" }))
    assert.matches("max_active", message(function() end, { max_active = 0 }))
    assert.matches("deadline", message(function() end, { deadline = -1 }))
    assert.matches("timeout", message({ timeout = "soon" }))
    assert.matches("function is expected, not a number", message(42))
    assert.matches("function is expected, not a table", message({}, {}))
  end)
end)
