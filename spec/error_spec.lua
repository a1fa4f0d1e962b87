-- SPDX-License-Identifier: MIT
local core = require "fork_map.core"
local fork_map = require "fork_map"
local process = require "support.process"
local sys = require "specs_core"

-- As modules keep them: taken before any fork.
local exit = os.exit
local failure = process.failure

describe("fork_map.Error", function()
  process.guard(before_each, after_each)

  describe("kind error", function()
    local raised = {
      { "a text", "spec text", "spec text" },
      { "an integer", 42, "42" },
      { "a float", 1.5, "1.5" },
      { "true", true, "(error object is a boolean value)" },
      { "false", false, "(error object is a boolean value)" },
      { "a table", { code = 7, list = { 1, 2 } }, "(error object is a table value)" },
      { "a text with a zero", "a\0b", "a\0b" },
    }
    for _, case in ipairs(raised) do
      local name, value, message = table.unpack(case, 1, 3)
      it("keeps " .. name .. " that was raised, with its text and traceback", function()
        local err = failure(fork_map, function()
          error(value, 0)
        end)
        assert.equal("error", err.kind)
        assert.same(value, err.value)
        assert.equal(math.type(value), math.type(err.value))
        assert.equal(message, err.message)
        assert.matches("^stack traceback:\n", err.traceback)
        assert.matches("spec/error_spec.lua:%d+: in function", err.traceback)
      end)
    end

    it("has the position in the message, as in a direct call", function()
      local function fail()
        error("boom")
      end
      local _, direct = pcall(fail)
      assert.equal(direct, failure(fork_map, fail).message)
    end)

    it("tells that nil was raised", function()
      local err = failure(fork_map, function() error(nil) end)
      assert.equal("error", err.kind)
      assert.is_nil(err.value)
      assert.equal("(error object is a nil value)", err.message)
    end)

    it("takes the message from __tostring and the value from the table", function()
      local err = failure(fork_map, function()
        error(setmetatable({ code = 3 }, { __tostring = function(self)
          return "code " .. self.code
        end }))
      end)
      assert.equal("code 3", err.message)
      assert.same({ code = 3 }, err.value)
    end)

    it("survives a __tostring that raises", function()
      local err = failure(fork_map, function()
        error(setmetatable({}, { __tostring = function() error("no text") end }))
      end)
      assert.equal("(error object is a table value)", err.message)
    end)

    it("survives a __tostring that returns no text", function()
      local err = failure(fork_map, function()
        error(setmetatable({}, { __tostring = function() return 1 end }))
      end)
      assert.equal("error", err.kind)
    end)

    it("keeps the text alone of a value that cannot cross", function()
      for _, value in ipairs { print, io.stdout, coroutine.create(print), { print } } do
        local err = failure(fork_map, error, value)
        assert.equal("error", err.kind)
        assert.is_nil(err.value)
        assert.is_string(err.message)
      end
    end)

    it("keeps beginning and end of a message of 100 MB, 64 KiB in all", function()
      local err = failure(fork_map, function()
        error("begin" .. ("x"):rep(100000000) .. "end", 0)
      end)
      assert.equal("error", err.kind)
      assert.equal(65536, #err.message)
      assert.matches("^beginxxx", err.message)
      assert.matches("xxxend$", err.message)
      assert.is_nil(err.value)
    end)

    it("keeps a message of just 64 KiB as it is, and cuts one that is a byte longer", function()
      local err = failure(fork_map, function() error(("x"):rep(65536), 0) end)
      assert.equal(("x"):rep(65536), err.value)
      err = failure(fork_map, function() error(("x"):rep(65537), 0) end)
      assert.equal(65536, #err.message)
      assert.is_nil(err.value)
    end)

    it("keeps the traceback of a deep recursion short", function()
      local function recurse(n)
        return 1 + recurse(n + 1)
      end
      local err = failure(fork_map, recurse, 1)
      assert.equal("error", err.kind)
      assert.matches("stack overflow", err.message)
      assert.is_true(#err.traceback < 65536)
    end)

    it("is a __close of the closure that raises, when the rest went well", function()
      local err = failure(fork_map, function()
        local _ <close> = setmetatable({}, { __close = function() error("cannot close", 0) end })
        return 1
      end)
      assert.equal("error", err.kind)
      assert.equal("cannot close", err.message)
    end)

    it("tells an error in a message handler of the closure", function()
      local err = failure(fork_map, function()
        local _, message = xpcall(error, function() error("again") end, "first")
        error(message, 0)
      end)
      assert.equal("error", err.kind)
    end)

    it("holds the error of a call inside the child as its value", function()
      local err = failure(fork_map, function()
        fork_map(function() error("inner", 0) end)
      end)
      assert.equal("error", err.kind)
      assert.equal("inner", err.message)
      assert.equal("error", err.value.kind)
      assert.equal("inner", err.value.message)
    end)

  end)

  describe("kind exit", function()
    for _, code in ipairs { 1, 2, 3, 127, 255 } do
      it(("is os.exit(%d), with the code"):format(code), function()
        local err = failure(fork_map, function() os.exit(code) end)
        assert.equal("exit", err.kind)
        assert.equal(code, err.exit_code)
      end)
    end

    it("is every way to leave with a code other than 0", function()
      local ways = {
        function() os.exit(false) end,
        function() os.exit(1, true) end,
        function() exit(1) end,
        function() exit(1, true) end,
        function() exit(false, true) end,
        function() sys.exit(1) end,
        function() sys.quick_exit(1) end,
        function() coroutine.wrap(function() os.exit(1, true) end)() end,
        function() coroutine.wrap(function() exit(1, true) end)() end,
        function() coroutine.resume(coroutine.create(function() exit(false, true) end)) end,
        function() pcall(exit, 1) end,
      }
      for i, way in ipairs(ways) do
        local err = failure(fork_map, way)
        assert.equal("exit", err.kind, "way " .. i)
        assert.equal(1, err.exit_code, "way " .. i)
      end
    end)

    it("reduces a code as the kernel does", function()
      assert.equal(1, failure(fork_map, os.exit, 257).exit_code)
      assert.equal(255, failure(fork_map, os.exit, -1).exit_code)
    end)

    it("runs no atexit handler of the host", function()
      local name = os.tmpname()
      -- In a child, so that the handler does not stay with this process.
      fork_map(function()
        assert(sys.atexit_append(name))
        for _, way in ipairs { os.exit, exit, sys.exit, sys.quick_exit } do
          pcall(fork_map, way, 0)
          pcall(fork_map, way, 1)
        end
        pcall(fork_map, exit, 0, true)
      end)
      assert.equal("", process.read_file(name))
      os.remove(name)
    end)

    it("keeps what the child had printed", function()
      local err = failure(fork_map.with { output = "capture" }, function()
        io.write("unfinished")
        os.exit(2)
      end)
      assert.equal("unfinished", err.stdout)
    end)
  end)

  describe("kind no_result", function()
    it("is every way to leave with code 0 and without a result", function()
      local ways = {
        function() os.exit() end,
        function() os.exit(0) end,
        function() os.exit(true) end,
        function() os.exit(true, true) end,
        function() os.exit(256) end,
        function() exit() end,
        function() exit(true, true) end,
        function() sys.exit(0) end,
        function() sys.quick_exit(0) end,
      }
      for i, way in ipairs(ways) do
        local err = failure(fork_map, way)
        assert.equal("no_result", err.kind, "way " .. i)
        assert.equal(0, err.exit_code, "way " .. i)
      end
    end)
  end)

  describe("kind signal", function()
    local deadly = {
      [1] = "SIGHUP", [2] = "SIGINT", [3] = "SIGQUIT", [4] = "SIGILL", [5] = "SIGTRAP",
      [6] = "SIGABRT", [7] = "SIGBUS", [8] = "SIGFPE", [9] = "SIGKILL", [10] = "SIGUSR1",
      [11] = "SIGSEGV", [12] = "SIGUSR2", [13] = "SIGPIPE", [14] = "SIGALRM",
      [15] = "SIGTERM", [16] = "SIGSTKFLT", [24] = "SIGXCPU", [25] = "SIGXFSZ",
      [26] = "SIGVTALRM", [29] = "SIGIO", [30] = "SIGPWR", [31] = "SIGSYS",
    }
    for signal, name in pairs(deadly) do
      it(("names %s (%d) that killed the child"):format(name, signal), function()
        local err = failure(fork_map, sys.raise, signal)
        assert.equal("signal", err.kind)
        assert.equal(signal, err.signal)
        assert.equal(name == "SIGIO" and "SIGPOLL" or name,
          err.signame == "SIGIO" and "SIGPOLL" or err.signame)
        assert.is_nil(err.exit_code)
      end)
    end

    for _, signal in ipairs { 17, 18, 21, 22, 23, 28 } do
      it(("is not signal %d, which kills nobody"):format(signal), function()
        assert.equal("alive", fork_map(function()
          sys.raise(signal)
          return "alive"
        end))
      end)
    end

    it("is a crash of C code", function()
      local err = failure(fork_map, sys.segv)
      assert.equal("signal", err.kind)
      assert.equal(11, err.signal)
      assert.equal(6, failure(fork_map, sys.abort).signal)
    end)

    it("tells where the child was when it was killed from outside", function()
      local err = failure(fork_map, function()
        local pid = sys.fork_once()
        if pid == 0 then
          sys.sleep(0.3)
          sys.kill(sys.getpgrp(), 9)
        end
        while true do end
      end)
      assert.equal("signal", err.kind)
      assert.matches("error_spec.lua:%d+$", err.last.line)
      assert.is_true(err.last.elapsed > 0.2)
      assert.is_true(err.last.max_rss > 0)
    end)

    it("does not take back a result that was whole", function()
      assert.equal("whole", fork_map(function()
        -- A child of the child outlives its result and is killed with the group.
        sys.fork_and_hold()
        return "whole"
      end))
    end)
  end)

  describe("kind timeout", function()
    local short = fork_map.with { timeout = 0.05, grace = 0.05 }

    it("ends a loop that never ends, and tells its line", function()
      local line = debug.getinfo(1, "l").currentline + 2
      local took, _, err = process.timed(fork_map.with { timeout = 0.3, grace = 0.05 }, function()
        while true do end
      end)
      assert.equal("timeout", err.kind)
      assert.equal(("spec/error_spec.lua:%d"):format(line), err.last.line:gsub("^%./", ""))
      assert.is_true(took < 5)
    end)

    it("ends a sleep", function()
      assert.equal("timeout", failure(short, sys.sleep, 30).kind)
    end)

    it("ends a child that ignores SIGTERM, after the grace", function()
      local took, _, err = process.timed(fork_map.with { timeout = 0.3, grace = 0.1 }, function()
        sys.handle(15, "ignore")
        sys.sleep(30)
      end)
      assert.equal("timeout", err.kind)
      assert.is_true(took >= 0.4 and took < 5)
    end)

    it("ends a child that is stopped", function()
      assert.equal("timeout", failure(short, sys.raise, 19).kind)
    end)

    it("ends a child that blocks all signals", function()
      assert.equal("timeout", failure(short, function()
        for signal = 1, 31 do
          sys.block(signal, true)
        end
        sys.sleep(30)
      end).kind)
    end)

    it("ends the child at once without grace", function()
      local opts = { timeout = 0.02, grace = 0 }
      local took, _, err = process.timed(fork_map.with { grace = 20 }:with(opts), function()
        sys.handle(15, "ignore")
        sys.sleep(30)
      end)
      assert.equal("timeout", err.kind)
      assert.is_true(took < 5)
    end)

    it("ends what the child has started too", function()
      local reader, writer = sys.pipe()
      failure(short, function()
        sys.write(writer, tostring(sys.fork_and_hold()))
        sys.sleep(30)
      end)
      local pid = math.tointeger(sys.read(reader))
      sys.close(reader)
      sys.close(writer)
      process.eventually(function() return process.is_gone(pid) end, "the grandchild is gone")
    end)

    it("is not reached by a call that is done in time", function()
      assert.equal(1, fork_map.with { timeout = 20 }(function() return 1 end))
    end)

    it("kills the child even when nobody steps the engine", function()
      -- The child of a child that stops stepping: the kernel's timer ends it.
      local reader, writer = sys.pipe()
      local pid = fork_map(function()
        local opts = { timeout = 0.01, grace = 0.01 }
        local future = process.spawn(fork_map.engine(), opts, function()
          sys.handle(15, "ignore")
          sys.write(writer, "x")
          sys.sleep(30)
        end)
        sys.read(reader)
        local inner = core.pid(future)
        process.eventually(function() return process.is_gone(inner) end, "killed by a timer")
        return inner
      end)
      sys.close(reader)
      sys.close(writer)
      assert.is_number(pid)
    end)
  end)

  describe("kind encode", function()
    it("names the way to the value", function()
      local err = failure(fork_map, function()
        return 1, { a = { b = { 1, 2, print } } }
      end)
      assert.equal("encode", err.kind)
      assert.equal("result2.a.b[3]", err.path)
      assert.matches("function", err.message)
    end)

    for _, case in ipairs {
      { "a function", print }, { "a file", io.stdout }, { "a coroutine", coroutine.create(print) },
    } do
      it("refuses " .. case[1], function()
        local err = failure(fork_map, function() return case[2] end)
        assert.equal("encode", err.kind)
        assert.equal("result", err.path)
      end)
    end

    it("is an encode function that raises a text", function()
      local view = fork_map.with { codec = {
        encode = function() error("cannot pack", 0) end,
        decode = function() end,
      } }
      local err = failure(view, function() return 1 end)
      assert.equal("encode", err.kind)
      assert.matches("cannot pack", err.message)
    end)

    it("is an error of that kind when an encode function raises a table", function()
      local view = fork_map.with { codec = {
        encode = function() error { code = 5 } end,
        decode = function() end,
      } }
      local err = failure(view, function() return 1 end)
      assert.equal("error", err.kind)
      assert.same({ code = 5 }, err.value)
    end)
  end)

  describe("kind protocol", function()
    it("is a decode function that raises a text", function()
      local view = fork_map.with { codec = {
        encode = function() return "bytes" end,
        decode = function() error("cannot unpack", 0) end,
      } }
      local err = failure(view, function() return 1 end)
      assert.equal("protocol", err.kind)
      assert.matches("cannot unpack", err.message)
    end)

    for _, byte in ipairs { 0x01, 0x55, 0x80, 0xFF } do
      it(("is a child that fills what it shares with the caller with %#x"):format(byte), function()
        local err = failure(fork_map, function()
          assert(sys.scribble(byte) > 0)
          sys.quick_exit(0)
        end)
        assert.equal("protocol", err.kind)
        assert.equal(1, fork_map(function() return 1 end))
      end)
    end
  end)

  describe("kind cancelled", function()
    it("is a call that was ended by a cancel, running or waiting for its turn", function()
      local engine <close> = fork_map.new { max_children = 1 }
      local running = process.spawn(engine, { grace = 0 }, sys.sleep, 20)
      local waiting = process.spawn(engine, { grace = 0 }, sys.sleep, 20)
      for _, future in ipairs { waiting, running } do
        assert.is_true(core.cancel(future, 0))
        while not core.wait(future) do end
        assert.equal("cancelled", failure(core.result, future).kind)
        assert.is_false(core.cancel(future, 0))
      end
    end)
  end)

  describe("kind closed", function()
    it("is a call on an engine that was closed", function()
      local engine = fork_map.new()
      engine:close()
      assert.equal("closed", failure(engine, function() end).kind)
    end)

    it("is a call on an engine of the parent process", function()
      local engine = fork_map.new()
      assert.equal("closed", fork_map(function()
        return failure(engine, function() end).kind
      end))
      assert.equal(1, engine(function() return 1 end))
      engine:close()
    end)
  end)

  describe("a grandchild that holds descriptors", function()
    it("does not delay the result, and ends with the call", function()
      local took, _, pid = process.timed(fork_map, function()
        return sys.fork_and_hold()
      end)
      assert.is_true(took < 5)
      process.eventually(function() return process.is_gone(pid) end, "the grandchild is gone")
    end)

    it("does not delay a failure", function()
      local took, _, err = process.timed(fork_map, function()
        sys.fork_and_hold()
        sys.raise(9)
      end)
      assert.equal(9, err.signal)
      assert.is_true(took < 5)
    end)
  end)

  describe("every failure", function()
    local causes = {
      error = function() error("boom") end,
      exit = function() os.exit(3) end,
      signal = sys.segv,
      no_result = function() sys.quick_exit(0) end,
      timeout = function() sys.raise(19) end,
      limit = function() return ("x"):rep(1 << 20) end,
      encode = function() return print end,
    }
    for kind, cause in pairs(causes) do
      it(("of kind %s is known within a second"):format(kind), function()
        local view = fork_map.with { timeout = 0.2, grace = 0.2, limits = { result = "1K" } }
        local took, ok, err = process.timed(view, cause)
        assert.is_false(ok)
        assert.equal(kind, err.kind)
        -- The timeout and its grace come before the failure.
        assert.is_true(took - 0.4 < 1)
      end)
    end
  end)

  describe("fields", function()
    it("tell the process, the attempt and what was used", function()
      local err = failure(fork_map.with { name = "label" }, function()
        local n = 0
        for i = 1, 2000000 do
          n = n + i
        end
        error(sys.getpid())
      end)
      assert.equal(err.value, err.pid)
      assert.equal(1, err.attempt)
      assert.equal("label", err.name)
      assert.is_true(err.usage.user + err.usage.sys > 0)
      assert.is_true(err.usage.wall > 0)
      assert.is_true(err.usage.max_rss > 100000)
    end)

    it("are absent where nothing is known", function()
      local err = failure(fork_map, error, "x", 0)
      for _, field in ipairs { "signal", "signame", "exit_code", "limit", "path", "name",
        "stdout", "stderr", "dropped", "index", "key", "partial" } do
        assert.is_nil(err[field], field)
      end
    end)
  end)

  describe("tostring()", function()
    it("is the message", function()
      assert.equal("boom", tostring(failure(fork_map, error, "boom", 0)))
    end)

    it("begins with the name of the call", function()
      local err = failure(fork_map.with { name = "parse" }, error, "boom", 0)
      assert.equal("parse: boom", tostring(err))
    end)

    it("escapes control characters, which stay in the fields", function()
      local text = "a\27[31mb\0c\127d\xC2\x9Be\tf\ng\rh"
      local err = failure(fork_map, error, text, 0)
      assert.equal(text, err.message)
      assert.equal("a\\x1B[31mb\\x00c\\x7Fd\\xC2\\x9Be\tf\ng\\x0Dh", tostring(err))
    end)
  end)
end)
