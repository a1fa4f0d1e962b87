-- SPDX-License-Identifier: MIT
local core = require "fork_map.core"
local fork_map = require "fork_map"
local memory = require "specs_memory"
local process = require "support.process"
local sys = require "specs_core"

local function stats(engine)
  return core.engine_stats(engine.core)
end

describe("fork_map.with()", function()
  process.guard(before_each, after_each)

  it("gives a view that calls with its options", function()
    local view = fork_map.with { timeout = 0.05, grace = 0 }
    assert.equal("timeout", process.failure(view, sys.sleep, 20).kind)
    assert.equal(3, view(function(a, b) return a + b end, 1, 2))
  end)

  it("nests: later options win, others stay", function()
    local view = fork_map.with { name = "outer", output = "capture" }:with { name = "inner" }
    local err = process.failure(view, function()
      io.write("text")
      error("boom")
    end)
    assert.equal("inner", err.name)
    assert.equal("text", err.stdout)
  end)

  it("merges limits one by one", function()
    local view = fork_map.with { limits = { result = "1K", files = 3 } }
      :with { limits = { files = 7 } }
    assert.equal("result", process.failure(view, string.rep, "x", 2000).limit)
    assert.equal(7, view(function()
      local files = {}
      for i = 1, 10 do
        files[i] = io.open("/dev/null")
      end
      return #files
    end))
  end)

  it("leaves the view that it came from as it was", function()
    local outer = fork_map.with { timeout = math.huge }
    local _ = outer:with { timeout = 0.01, grace = 0 }
    assert.equal(1, outer(function()
      sys.sleep(0.05)
      return 1
    end))
  end)

  it("takes math.huge as no timeout over another one", function()
    local view = fork_map.with { timeout = 0.01, grace = 0 }:with { timeout = math.huge }
    assert.equal(1, view(function()
      sys.sleep(0.05)
      return 1
    end))
  end)

  it("follows the default engine into a child", function()
    local view = fork_map.with { name = "label" }
    assert.equal("label", fork_map(function()
      return process.failure(view, error, "boom").name
    end))
  end)
end)

describe("fork_map.new()", function()
  process.guard(before_each, after_each)

  it("is refused in a Lua state whose memory its children would change", function()
    local text = memory.run_shared([[
      local _, message = pcall(require("fork_map").new)
      return message
    ]], package.path, package.cpath)
    assert.matches("shared with its children", text, 1, true)
  end)

  it("makes an engine with children and defaults of its own", function()
    local engine <close> = fork_map.new { name = "mine" }
    assert.not_equal(fork_map.engine(), engine)
    assert.equal("mine", process.failure(engine, error, "boom").name)
    assert.is_nil(process.failure(fork_map, error, "boom").name)
    assert.equal(1, stats(engine).spawned)
  end)

  it("needs no options", function()
    local engine <close> = fork_map.new()
    assert.equal(1, engine(function() return 1 end))
  end)

  it("gives views over its defaults", function()
    local engine <close> = fork_map.new { name = "mine", output = "capture" }
    local err = process.failure(engine:with { name = "other" }, function()
      io.write("text")
      error("boom")
    end)
    assert.same({ "other", "text" }, { err.name, err.stdout })
    assert.equal(1, stats(engine).spawned)
  end)

  it("says what it is", function()
    local engine <close> = fork_map.new()
    assert.matches("^fork_map.Engine: ", tostring(engine))
    assert.matches("^fork_map.View: ", tostring(engine:with {}))
  end)

  describe("close()", function()
    it("gives back every descriptor and may be called again", function()
      local before = sys.fds()
      local engine = fork_map.new()
      engine(function() end)
      engine:close()
      assert.same(before, sys.fds())
      engine:close()
    end)

    it("ends what runs, and what waits for a slot", function()
      local engine = fork_map.new { max_children = 1, grace = 0 }
      local running = process.spawn(engine, { grace = 0 }, sys.sleep, 20)
      local waiting = process.spawn(engine, { grace = 0 }, sys.sleep, 20)
      assert.equal(1, stats(engine).running)
      local took = process.timed(engine.close, engine)
      assert.is_true(took < 5)
      for _, future in ipairs { running, waiting } do
        assert.is_true(core.settled(future))
        assert.equal("closed", process.failure(core.result, future).kind)
      end
    end)

    it("is what leaving the block of a to-be-closed variable does", function()
      local kept
      do
        local engine <close> = fork_map.new()
        kept = engine
      end
      assert.equal("closed", process.failure(kept, function() end).kind)
    end)

    it("happens when the engine is collected", function()
      local before = sys.fds()
      fork_map.new()(function() end)
      collectgarbage()
      collectgarbage()
      assert.same(before, sys.fds())
    end)

    it("happens when the Lua state ends", function()
      local program = ([[
        package.path, package.cpath = %q, %q
        local core = require "fork_map.core"
        local fork_map = require "fork_map"
        local sys = require "specs_core"
        future = core.future(fork_map.engine().core, core.options {})
        core.start(future, sys.sleep, 20)
        print(core.pid(future))
      ]]):format(package.path, package.cpath)
      local name = os.tmpname()
      local file = assert(io.open(name, "w"))
      file:write(program)
      file:close()
      local pipe = assert(io.popen("lua5.4 " .. name))
      local pid = pipe:read("n")
      pipe:close()
      os.remove(name)
      assert.is_number(pid)
      assert.is_nil(process.state(pid))
    end)

    it("raises in a callback of the engine", function()
      local ok, message
      local engine <close> = fork_map.new()
      engine:with { output = function()
        ok, message = pcall(engine.close, engine)
      end }(print, "x")
      assert.is_false(ok)
      assert.matches("inside a callback", message)
    end)

    it("does nothing to the parent's children when a child closes or collects", function()
      local engine <close> = fork_map.new()
      local future = process.spawn(engine, {}, sys.sleep, 0.05)
      fork_map(function()
        fork_map.new()
        collectgarbage()
        engine:close()
      end)
      while not core.wait(future) do end
      assert.equal(0, select("#", core.result(future)))
    end)
  end)

  describe("in a finalizer that runs after the engine's own", function()
    it("is closed already, whatever is done with it", function()
      local done
      do
        local owner = setmetatable({}, {
          __gc = function(self)
            self.engine:close()
            done = {
              pcall(self.engine, print),
              pcall(self.engine.configure, self.engine, { max_children = 2 }),
            }
            Kept = self.engine -- luacheck: ignore 111
          end,
        })
        owner.engine = fork_map.new()
      end
      collectgarbage()
      collectgarbage()
      assert.is_false(done[1])
      assert.is_false(done[2])
      local engine = Kept -- luacheck: ignore 113
      Kept = nil -- luacheck: ignore 111
      assert.equal("closed", process.failure(engine, print).kind)
    end)
  end)

  describe("max_children", function()
    it("makes further jobs wait for a slot", function()
      local engine <close> = fork_map.new { max_children = 2, grace = 0 }
      local reader, writer = sys.pipe()
      local futures = {}
      for i = 1, 3 do
        futures[i] = process.spawn(engine, {}, sys.read, reader)
      end
      assert.same({ 2, 1 }, { stats(engine).running, stats(engine).queued })
      sys.write(writer, "x")
      sys.close(writer)
      -- The children have the writing end too.
      for _, future in ipairs(futures) do
        core.cancel(future, 0)
        while not core.wait(future) do end
      end
      assert.equal(0, stats(engine).running + stats(engine).queued)
      sys.close(reader)
    end)
  end)

  describe("on_threads", function()
    -- In a child, whose thread ends with it.
    local function beside_a_thread(opts)
      return fork_map(function()
        assert(sys.start_thread())
        local warnings = {}
        opts.on_warning = function(text) warnings[#warnings + 1] = text end
        local engine <close> = fork_map.new(opts)
        local ok, value
        for _ = 1, 2 do
          ok, value = pcall(engine, sys.getpid)
        end
        return ok, ok and math.type(value) or value.kind, #warnings, warnings[1]
      end)
    end

    it("warns once of a host with threads", function()
      local ok, value, n, text = beside_a_thread {}
      assert.same({ true, "integer", 1 }, { ok, value, n })
      assert.matches("2 threads", text)
    end)

    it("can refuse to fork it", function()
      assert.same({ false, "spawn", 0 }, { beside_a_thread { on_threads = "refuse" } })
    end)

    it("can be silent about it", function()
      assert.same({ true, "integer", 0 }, { beside_a_thread { on_threads = "ignore" } })
    end)

    it("warns on standard error when nobody listens", function()
      local err = process.failure(fork_map.with { output = "capture" }, function()
        assert(sys.start_thread())
        fork_map(function() end)
        error("end", 0)
      end)
      assert.matches("^fork_map: .*2 threads[^\n]*\n$", err.stderr)
    end)
  end)

  describe("configure()", function()
    it("changes options of a living engine", function()
      local engine <close> = fork_map.new { max_children = 1 }
      engine:configure { max_children = 2 }
      local futures = {}
      for i = 1, 2 do
        futures[i] = process.spawn(engine, {}, sys.sleep, 20)
      end
      assert.equal(2, stats(engine).running)
      for _, future in ipairs(futures) do
        core.cancel(future, 0)
        while not core.wait(future) do end
      end
    end)

    it("keeps what it does not name", function()
      local unhandled = 0
      local engine <close> = fork_map.new { on_unhandled = function()
        unhandled = unhandled + 1
      end }
      engine:configure { max_children = 2 }
      engine:with { output = error }(print, "x")
      assert.equal(1, unhandled)
    end)

    it("takes a callback away with false", function()
      local unhandled, warnings = 0, 0
      local engine <close> = fork_map.new {
        on_unhandled = function() unhandled = unhandled + 1 end,
        on_warning = function() warnings = warnings + 1 end,
      }
      engine:configure { on_unhandled = false }
      engine:with { output = error }(print, "x")
      assert.same({ 0, 1 }, { unhandled, warnings })
    end)
  end)

  describe("on_warning", function()
    it("may raise, which harms nobody", function()
      local errors = fork_map.with { output = "capture" }
      local err = process.failure(errors, function()
        local engine <close> = fork_map.new {
          output = function() error("first", 0) end,
          on_warning = function() error("second", 0) end,
        }
        engine(print, "x")
        error("end", 0)
      end)
      assert.equal("end", err.message)
      assert.matches("first", err.stderr)
      assert.matches("second", err.stderr)
    end)
  end)
end)

describe("fork_map.engine()", function()
  process.guard(before_each, after_each)

  it("is the same engine every time, which the module's calls use", function()
    local engine = fork_map.engine()
    assert.equal(engine, fork_map.engine())
    local before = stats(engine).spawned
    fork_map(function() end)
    assert.equal(before + 1, stats(engine).spawned)
  end)

  it("is another one in a child, with the same options", function()
    fork_map.engine():configure { max_depth = 1 }
    local kind = fork_map(function()
      return process.failure(fork_map, function() end).kind
    end)
    fork_map.engine():configure { max_depth = 16 }
    assert.equal("spawn", kind)
    assert.equal(1, fork_map(function() return fork_map(function() return 1 end) end))
  end)
end)

describe("fork_map.at_fork()", function()
  process.guard(before_each, after_each)

  -- Hooks stay for the life of the Lua state, so each test has its own: a child.
  local function in_child(fn)
    return fork_map(fn)
  end

  it("runs before hooks backwards, parent and child hooks in order", function()
    local parent_log, child_log = in_child(function()
      local log = {}
      for i = 1, 2 do
        fork_map.at_fork {
          before = function() log[#log + 1] = "before" .. i end,
          parent = function() log[#log + 1] = "parent" .. i end,
          child = function() log[#log + 1] = "child" .. i end,
        }
      end
      local inner = fork_map(function() return log end)
      return log, inner
    end)
    assert.same({ "before2", "before1", "parent1", "parent2" }, parent_log)
    assert.same({ "before2", "before1", "child1", "child2" }, child_log)
  end)

  it("runs hooks for every engine of the Lua state, old and new", function()
    assert.equal(3, in_child(function()
      local count = 0
      local old <close> = fork_map.new()
      fork_map.at_fork { before = function() count = count + 1 end }
      local new <close> = fork_map.new()
      old(function() end)
      new(function() end)
      fork_map(function() end)
      return count
    end))
  end)

  it("gives up the fork when a before hook raises", function()
    local kind, message = in_child(function()
      fork_map.at_fork { before = function() error("not now", 0) end }
      local err = process.failure(fork_map, function() end)
      return err.kind, err.message
    end)
    assert.equal("spawn", kind)
    assert.matches("not now", message)
  end)

  it("runs the parent hooks of those that ran before one that raises", function()
    local log = in_child(function()
      local log = {}
      local function note(what)
        return function() log[#log + 1] = what end
      end
      fork_map.at_fork { before = note "never", parent = note "never" }
      fork_map.at_fork { before = function() error "not now" end, parent = note "never" }
      fork_map.at_fork { before = note "lock", parent = note "unlock" }
      fork_map.at_fork { parent = note "no before" }
      process.failure(fork_map, function() end)
      return log
    end)
    assert.same({ "lock", "unlock", "no before" }, log)
  end)

  it("runs all parent hooks though one of them raises", function()
    assert.same({ "before", "parent" }, in_child(function()
      local log = {}
      local engine = fork_map.new { on_unhandled = function() end }
      fork_map.at_fork { parent = function() error "no" end }
      fork_map.at_fork {
        before = function() log[1] = "before" end,
        parent = function() log[2] = "parent" end,
      }
      engine(function() end)
      return log
    end))
  end)

  it("fails the call when a child hook raises", function()
    local kind, message = in_child(function()
      fork_map.at_fork { child = function() error("not here", 0) end }
      local err = process.failure(fork_map, function() return 1 end)
      return err.kind, err.message
    end)
    assert.equal("error", kind)
    assert.equal("not here", message)
  end)

  it("tells on_unhandled what a parent hook raises, and goes on", function()
    local value, seen = in_child(function()
      local text
      fork_map.engine():configure { on_unhandled = function(err, why)
        text = why .. ": " .. err
      end }
      fork_map.at_fork { parent = function() error("not there", 0) end }
      return fork_map(function() return 1 end), text
    end)
    assert.equal(1, value)
    assert.equal("callback: not there", seen)
  end)

  it("refuses to wait inside a hook", function()
    local message = in_child(function()
      local text
      fork_map.at_fork { before = function()
        local ok, err = pcall(fork_map, function() end)
        text = not ok and err
      end }
      fork_map(function() end)
      return text
    end)
    assert.matches("inside a callback", message)
  end)

  it("raises for what is no hook", function()
    assert.has_error(function() fork_map.at_fork() end)
    assert.has_error(function() fork_map.at_fork { after = print } end)
    assert.has_error(function() fork_map.at_fork { before = 1 } end)
  end)
end)

describe("fork_map", function()
  process.guard(before_each, after_each)

  it("tells its version", function()
    assert.matches("^fork_map %d+%.%d+%.%d+$", fork_map._VERSION)
  end)

  it("has a null that crosses, and lists that stay lists", function()
    local value = fork_map(function()
      return { a = fork_map.null, list = fork_map.array {} }
    end)
    assert.equal(fork_map.null, value.a)
    assert.same({}, value.list)
  end)

  it("marks new and given tables as lists", function()
    local list = { 1 }
    assert.equal(list, fork_map.array(list))
    assert.same({}, fork_map.array())
    assert.has_error(function() fork_map.array(1) end)
  end)

  it("tells what a fork costs before and after prepare()", function()
    local report = fork_map(fork_map.prepare)
    assert.is_true(report.before > 0 and report.after > 0)
    assert.is_true(math.type(report.bytes) == "integer" and report.bytes >= 0)
  end)
end)
