-- SPDX-License-Identifier: MIT
local fork_map = require "fork_map"
local process = require "support.process"
local quiet = require "support.quiet"
local sys = require "specs_core"

describe("fork_map.run()", function()
  quiet.guard(before_each, after_each)

  it("gives the values of main, after its tasks and their tasks have ended", function()
    local order = {}
    local results = table.pack(fork_map.run(function(...)
      fork_map.task(function()
        fork_map.task(function()
          fork_map.sleep(0.002)
          coroutine.wrap(fork_map.task)(function()
            fork_map.yield()
            order[#order + 1] = "great-grandchild"
          end)
          order[#order + 1] = "grandchild"
        end)
        order[#order + 1] = "child"
      end)
      order[#order + 1] = "main"
      return ...
    end, nil, "b", nil))
    assert.same({ nil, "b", nil, n = 3 }, results)
    assert.same({ "main", "child", "grandchild", "great-grandchild" }, order)
    quiet.check()
  end)

  it("does not wait for tasks that others have started", function()
    local gate, open = quiet.gate()
    local other = fork_map.task(function() gate:wait() end)
    assert.equal(1, fork_map.run(function() return 1 end))
    assert.equal("running", other:status())
    open()
    other:wait()
  end)

  it("cancels the others when main fails, waits for them and raises its error", function()
    local order, raised = {}, { code = 1 }
    local err = process.failure(fork_map.run, function()
      fork_map.task(function()
        local _, err = pcall(fork_map.sleep, 60)
        order[#order + 1] = err.kind
        pcall(fork_map.task, function() order[#order + 1] = "started too late" end)
      end)
      fork_map.task(function()
        fork_map.with { grace = 0 }(sys.sleep, 60)
      end)
      fork_map.sleep(0.01)
      error(raised)
    end)
    assert.equal(raised, err.value)
    assert.equal("cancelled", order[1])
    quiet.check()
  end)

  it("lets another task fail without main", function()
    quiet.watch(function(engine, seen)
      assert.equal("main", engine:run(function()
        engine:task(error, "task")
        engine:sleep(0.001)
        return "main"
      end))
      collectgarbage()
      engine:step(0)
      assert.equal(1, #seen)
      assert.equal("unseen", seen[1].why)
    end)
  end)

  it("is refused in a task", function()
    assert.error_matches(function()
      fork_map.run(function() fork_map.run(function() end) end)
    end, "a task is running already")
    assert.error_matches(function()
      fork_map.run(function()
        coroutine.wrap(function() fork_map.run(function() end) end)()
      end)
    end, "a task is running already")
  end)

  it("says so when its tasks would wait for ever, and closes them", function()
    local closed = false
    assert.error_matches(function()
      fork_map.run(function()
        fork_map.task(function()
          local _ <close> = setmetatable({}, { __close = function() closed = true end })
          quiet.gate():wait()
        end)
      end)
    end, "would deadlock")
    assert.is_true(closed)
    fork_map.run(function() end)
    collectgarbage()
    collectgarbage()
    fork_map.yield()
  end)

  it("can be called again, and in a child", function()
    for i = 1, 3 do
      assert.equal(i, fork_map.run(function() return i end))
    end
    assert.equal(6, fork_map.run(function()
      return fork_map(function()
        return fork_map.run(function()
          local f = fork_map.task(function() fork_map.sleep(0.001) return 1 end)
          return f:await() + fork_map(function() return 5 end)
        end)
      end)
    end))
  end)

  -- What lua.c does on Ctrl-C: the main coroutine has a hook that raises once.
  local function interrupt(co)
    debug.sethook(co, function()
      debug.sethook(co)
      error("interrupted!", 0)
    end, "", 1)
  end

  for what, run in pairs {
    ["waits"] = function(co)
      quiet.after(0.005, function() interrupt(co) end)
      fork_map.sleep(60)
    end,
    ["runs"] = function(co)
      interrupt(co)
    end,
    ["waits for its tasks"] = function(co)
      fork_map.task(function()
        fork_map.sleep(0.001)
        interrupt(co)
        coroutine.yield()
        fork_map.sleep(60)
      end)
    end,
    ["is in a call"] = function(co)
      fork_map.task(function() interrupt(co) end)
      fork_map.with { grace = 0 }(sys.sleep, 60)
    end,
  } do
    it("closes all at once when a hook of the host raises while main " .. what, function()
      local co = coroutine.running()
      local closed = 0
      local function note()
        return setmetatable({}, { __close = function() closed = closed + 1 end })
      end
      local ok, err = pcall(fork_map.run, function()
        fork_map.task(function()
          local _ <close> = note()
          while true do pcall(fork_map.sleep, 60) end
        end)
        fork_map.yield()
        local _ <close> = note()
        run(co)
        fork_map.yield()
      end)
      assert.same({ false, "interrupted!" }, { ok, err })
      assert.equal(2, closed)
      collectgarbage()
      while #process.children() > 0 do fork_map.sleep(0.001) end
      fork_map.engine():step(0)
      quiet.check()
      assert.equal(1, fork_map.run(function() return 1 end))
    end)
  end

  it("loses no task when a hook raises while others wait at top level", function()
    local co = coroutine.running()
    local done = 0
    local list = {}
    for i = 1, 5 do
      list[i] = fork_map.task(function()
        fork_map.yield()
        if i == 3 then
          interrupt(co)
        end
        coroutine.yield()
        done = done + 1
      end)
    end
    local all = fork_map.all(list)
    local ok, err = pcall(all.await, all)
    assert.same({ false, "interrupted!" }, { ok, err })
    all:await()
    assert.equal(5, done)
  end)
end)
