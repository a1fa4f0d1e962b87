-- SPDX-License-Identifier: MIT
local fork_map = require "fork_map"
local process = require "support.process"
local sys = require "specs_core"

describe("fork_map()", function()
  process.guard(before_each, after_each)

  describe("values", function()
    it("returns all the values of the function, nils included", function()
      local results = table.pack(fork_map(function()
        return nil, 1, nil, "x", nil
      end))
      assert.same({ nil, 1, nil, "x", nil, n = 5 }, results)
    end)

    it("returns nothing when the function returns nothing", function()
      assert.equal(0, select("#", fork_map(function() end)))
    end)

    it("gives the arguments to the function, nils included", function()
      assert.same({ 3, nil, "b", nil }, { fork_map(function(...)
        return select("#", ...), ...
      end, nil, "b", nil) })
    end)

    it("carries 10,000 arguments and 10,000 results", function()
      local numbers = {}
      for i = 1, 10000 do
        numbers[i] = i
      end
      local results = table.pack(fork_map(function(...)
        return ...
      end, table.unpack(numbers)))
      assert.equal(10000, results.n)
      assert.equal(10000, results[10000])
    end)

    it("gives what cannot cross a pipe as an argument: functions, userdata, coroutines", function()
      local co = coroutine.create(function(a)
        coroutine.yield(a + 1)
      end)
      assert.same({ "file", 42, 6 }, { fork_map(function(file, fn, thread)
        local _, value = coroutine.resume(thread, 5)
        return io.type(file), fn(), value
      end, io.stdout, function() return 42 end, co) })
    end)

    it("finds upvalues as they are at the call", function()
      local upvalue = { 1 }
      local function get()
        return upvalue[1]
      end
      assert.equal(1, fork_map(get))
      upvalue[1] = 2
      assert.equal(2, fork_map(get))
    end)

    it("shows the caller nothing that the function changes", function()
      local upvalue = { 1 }
      fork_map(function()
        upvalue[1] = 2
        _G.changed_in_child = true
        package.loaded.changed_in_child = true
      end)
      assert.equal(1, upvalue[1])
      assert.is_nil(_G.changed_in_child)
      assert.is_nil(package.loaded.changed_in_child)
    end)

    it("accepts a C function", function()
      assert.equal(3, fork_map(math.max, 1, 3, 2))
    end)

    it("returns a string of 64 MB whole", function()
      local text = fork_map(function()
        return ("0123456789abcdef"):rep(4 << 20)
      end)
      assert.equal(64 << 20, #text)
      assert.equal("0123456789abcdef", text:sub(-16))
    end)

    it("runs in a process of its own, child of the caller's", function()
      local pid = fork_map(sys.getpid)
      assert.not_equal(sys.getpid(), pid)
      assert.is_nil(process.state(pid))
    end)
  end)

  describe("the caller's code", function()
    it("is not run twice by an error in the function", function()
      local runs = 0
      local ok = pcall(fork_map, function() error("boom") end)
      runs = runs + 1
      assert.is_false(ok)
      assert.equal(1, runs)
    end)

    it("is not reached by a yield in the function", function()
      local co = coroutine.create(function()
        return pcall(fork_map, function()
          coroutine.yield("into the caller's scheduler")
        end)
      end)
      local _, ok, err = coroutine.resume(co)
      assert.equal("dead", coroutine.status(co))
      assert.is_false(ok)
      assert.equal("error", err.kind)
      assert.matches("yield", err.message)
    end)

    it("sees no __close of the host's variables run in the child", function()
      local reader, writer = sys.pipe()
      do
        local _ <close> = setmetatable({}, { __close = function()
          sys.write(writer, "x")
        end })
        fork_map(function() end)
        pcall(fork_map, function() error("boom") end)
        pcall(fork_map, function() os.exit(0, true) end)
      end
      sys.close(writer)
      assert.equal("x", sys.read(reader))
      sys.close(reader)
    end)

    it("sees no __gc of the host's objects run when the child ends", function()
      local reader, writer = sys.pipe()
      do
        local object = setmetatable({}, { __gc = function()
          sys.write(writer, "x")
        end })
        fork_map(function() end)
        pcall(fork_map, function() os.exit(0, true) end)
        assert.is_table(object)
      end
      collectgarbage()
      sys.close(writer)
      assert.equal("x", sys.read(reader))
      sys.close(reader)
    end)

    it("keeps its text that waits in a file's buffer, which is written once", function()
      local name = os.tmpname()
      local file = assert(io.open(name, "w"))
      file:setvbuf("full")
      file:write("host ")
      fork_map(function() end)
      pcall(fork_map, os.exit, 3)
      file:write("ends")
      file:close()
      assert.equal("host ends", process.read_file(name))
      os.remove(name)
    end)

    it("finds what the child wrote to a file that it did not close", function()
      local name = os.tmpname()
      fork_map(function()
        local file = assert(io.open(name, "w"))
        file:setvbuf("full")
        file:write("child")
        _G.keep_open = file
      end)
      assert.equal("child", process.read_file(name))
      os.remove(name)
    end)

    it("keeps the locale that it has set", function()
      local locale = os.setlocale()
      fork_map(function() os.setlocale("C") end)
      assert.equal(locale, os.setlocale())
    end)

    it("keeps its random numbers, which children do not use up", function()
      math.randomseed(1)
      local expected = { math.random(), math.random() }
      math.randomseed(1)
      local first = math.random()
      fork_map(math.random)
      assert.same(expected, { first, math.random() })
    end)
  end)

  describe("where it may be called", function()
    it("works inside a coroutine", function()
      local co = coroutine.wrap(function()
        coroutine.yield(fork_map(function() return 1 end))
        return fork_map(function() return 2 end)
      end)
      assert.equal(1, co())
      assert.equal(2, co())
    end)

    it("works below 190 nested C calls", function()
      assert.equal(7, sys.nested(function()
        return fork_map(function() return 7 end)
      end, 180))
    end)

    it("gives the function a C stack of its own, however deep the caller is", function()
      assert.equal(7, sys.nested(function()
        return fork_map(function()
          return sys.nested(function() return 7 end, 180)
        end)
      end, 180))
    end)

    it("works inside a hook, and hooks of the function fire", function()
      local results
      debug.sethook(function()
        debug.sethook()
        results = { fork_map(function()
          local count = 0
          debug.sethook(function() count = count + 1 end, "", 100)
          for _ = 1, 10000 do end
          debug.sethook()
          return count > 10
        end) }
      end, "l")
      local _ = 1
      debug.sethook()
      assert.same({ true }, results)
    end)

    it("works inside a hook, as signal handlers set one, while another call waits", function()
      local engine <close> = fork_map.new()
      local inner
      sys.interrupt_after(0.05, function()
        inner = engine(function() return "inner" end)
      end)
      local outer = engine(function()
        sys.sleep(0.2)
        return "outer"
      end)
      sys.handle(14, "default")
      assert.same({ "inner", "outer" }, { inner, outer })
    end)

    it("does not run the caller's hook in the child", function()
      local lines = 0
      debug.sethook(function() lines = lines + 1 end, "l")
      local in_child = fork_map(function()
        local before = lines
        local _ = 1
        _ = 2
        return lines - before, debug.gethook() == nil
      end)
      debug.sethook()
      assert.equal(0, in_child)
    end)

    it("raises inside a __gc metamethod", function()
      local ok, message
      do
        setmetatable({}, { __gc = function()
          ok, message = pcall(fork_map, function() end)
        end })
      end
      collectgarbage()
      collectgarbage()
      assert.is_false(ok)
      assert.matches("inside a __gc metamethod", message)
    end)

    it("works inside a child, with an engine of its own", function()
      local engine = fork_map.engine()
      assert.same({ 6, true }, { fork_map(function()
        return fork_map(function()
          return fork_map(function() return 6 end)
        end), fork_map.engine() ~= engine
      end) })
    end)

    it("works with a collector in generational mode", function()
      collectgarbage("generational")
      local n = fork_map(function()
        local t
        for i = 1, 300000 do
          t = { i, t and t[1] }
        end
        return t[1]
      end)
      collectgarbage("incremental")
      assert.equal(300000, n)
    end)

    it("leaves a collector that the host has stopped as it is", function()
      collectgarbage("stop")
      local running = fork_map(function() return collectgarbage("isrunning") end)
      collectgarbage("restart")
      assert.is_false(running)
      assert.is_true(fork_map(function() return collectgarbage("isrunning") end))
    end)
  end)

  describe("an error of a hook in the caller", function()
    it("ends a running child at once and goes on to the caller", function()
      local reader, writer = sys.pipe()
      local took, ok, message = process.timed(function()
        sys.interrupt_after(0.3)
        fork_map(function()
          sys.write(writer, tostring(sys.getpid()))
          sys.sleep(30)
        end)
      end)
      sys.handle(14, "default")
      sys.close(writer)
      local pid = math.tointeger(sys.read(reader))
      sys.close(reader)
      assert.is_false(ok)
      assert.matches("interrupted!", message)
      assert.is_true(took < 5)
      assert.is_nil(process.state(pid))
    end)
  end)

  describe("misuse", function()
    for _, value in ipairs { false, 1, "x", {} } do
      it(("raises at the caller's line for a %s instead of a function"):format(type(value)),
        function()
          local line = debug.getinfo(1, "l").currentline + 1
          local ok, message = pcall(function() local r = fork_map(value) return r end)
          assert.is_false(ok)
          assert.equal(("spec/call_spec.lua:%d: fork_map: a function is expected, not a %s")
            :format(line, type(value)), message:gsub("^.-spec/", "spec/"))
        end)
    end

    it("raises when there is no argument", function()
      assert.has_error(function() fork_map() end)
    end)
  end)
end)
