-- SPDX-License-Identifier: MIT
local fork_map = require "fork_map"
local process = require "support.process"
local sys = require "specs_core"

-- What is raised at a line of this file, without the file's directory.
local function misuse(fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok)
  assert.is_string(message)
  return (message:gsub("^[^:]*options_spec%.lua", "options_spec.lua"))
end

describe("options", function()
  process.guard(before_each, after_each)

  describe("that are wrong", function()
    local nan = 0 / 0
    local wrong = {
      timeout = { 0, -1, nan, "5", true, {}, print },
      grace = { -1, nan, math.huge, "1", false },
      retries = { -1, 1.5, "1", 1000001, math.huge, {} },
      retry_on = { "signal", { "timout" }, { "cancelled" }, { "closed" }, { 1 },
        { signal = true }, { [2] = "signal" }, 1 },
      backoff = { -0.1, "1", math.huge, nan },
      limits = { 1, "256M", false },
      ["limits.memory"] = { 0, -1, 1.5, "", "12T", "K", "1.5M", " 1M", "1m", true,
        "99999999999999999999", "9007199254740993G", math.huge },
      ["limits.cpu"] = { 0, -1, "1", nan },
      ["limits.file_size"] = { -1, "x", 0.5 },
      ["limits.result"] = { 0, -1, "x" },
      ["limits.files"] = { -1, 1.5, "3" },
      ["limits.processes"] = { -1, 1.5, "3" },
      ["limits.disk"] = { 1 },
      codec = { "xml", 1, true, {}, { encode = print }, { encode = print, decode = 1 },
        { encode = print, decode = print, name = "x" } },
      seed = { 1.5, "1", nan, {}, true },
      output = { "file", 1, true, {} },
      keep_fds = { "none", 3, { -1 }, { "3" }, { 1.5 }, { [2] = 3 }, { fd = 3 } },
      nice = { 20, -21, 1.5, "1" },
      name = { "", 1, ("x"):rep(201), "a\0b" },
      sandbox = { "strict" },
      executor = { {} },
      timeoutt = { 1 },
      Timeout = { 1 },
    }
    for option, values in pairs(wrong) do
      it(("raise and are named: %s"):format(option), function()
        local group, name = option:match("^(%w+)%.(.*)$")
        for _, value in ipairs(values) do
          local opts = group and { [group] = { [name] = value } } or { [option] = value }
          local line = debug.getinfo(1, "l").currentline + 1
          local message = misuse(function() local v = fork_map.with(opts) return v end)
          assert.matches(("^options_spec.lua:%d: fork_map: "):format(line), message)
          assert.matches('option "' .. option:gsub("%.", "%%."), message)
        end
      end)
    end

    it("raise when their name is not a text", function()
      assert.matches("named by texts", misuse(fork_map.with, { "timeout" }))
      assert.matches("named by texts", misuse(fork_map.with, { [true] = 1 }))
    end)

    it("raise when they are not a table", function()
      for _, value in ipairs { 1, "timeout", true, print } do
        assert.matches("options must be a table", misuse(fork_map.with, value))
      end
      assert.matches("options must be a table", misuse(fork_map.with))
    end)

    it("suggest the name that was meant", function()
      for given, meant in pairs {
        timout = "timeout", retris = "retries", outptu = "output", colour = false,
        limit = "limits", nicee = "nice", keepfds = "keep_fds",
      } do
        local message = misuse(fork_map.with, { [given] = 1 })
        if meant then
          assert.matches(('did you mean "%s"'):format(meant), message)
        else
          assert.not_matches("did you mean", message)
        end
      end
      assert.matches('did you mean "limits.memory"',
        misuse(fork_map.with, { limits = { memry = 1 } }))
    end)

    it("name the item of a list that is wrong", function()
      assert.matches('not one with "bad"', misuse(fork_map.with, { retry_on = { "exit", "bad" } }))
      assert.matches("not one with %-2", misuse(fork_map.with, { keep_fds = { 1, -2 } }))
      assert.matches("not a table", misuse(fork_map.with, { retry_on = { x = "exit" } }))
    end)

    it("raise at the caller's line from every verb that takes them", function()
      local engine = fork_map.new()
      local view = fork_map.with {}
      for _, verb in ipairs {
        function() local r = fork_map.with { x = 1 } return r end,
        function() local r = fork_map.new { x = 1 } return r end,
        function() local r = engine:with { x = 1 } return r end,
        function() local r = view:with { x = 1 } return r end,
        function() engine:configure { x = 1 } end,
      } do
        local line = debug.getinfo(verb, "S").linedefined
        assert.matches(("^options_spec.lua:%d: fork_map: unknown option"):format(line),
          misuse(verb))
      end
      engine:close()
    end)

    it("raise for an engine too", function()
      for option, values in pairs {
        max_children = { 0, -1, 1.5, "4" },
        max_depth = { 0, 1001, "1" },
        on_threads = { "abort", 1, true },
        on_warning = { 1, "x", true, {} },
        on_unhandled = { 1, "x", true, {} },
        timeout = { -1 },
      } do
        for _, value in ipairs(values) do
          assert.matches(('option "%s" must be'):format(option),
            misuse(fork_map.new, { [option] = value }))
        end
      end
    end)

    it("raise when an option of an engine is given to a call, and the other way round", function()
      assert.matches('unknown option "max_children"', misuse(fork_map.with, { max_children = 1 }))
      local engine = fork_map.new()
      assert.matches('unknown option "timeout"',
        misuse(engine.configure, engine, { timeout = 1 }))
      engine:close()
    end)
  end)

  describe("that are right", function()
    it("are accepted at both ends of their ranges", function()
      for _, opts in ipairs {
        { timeout = 1e-9 }, { timeout = 1e300 }, { timeout = math.huge }, { grace = 0 },
        { grace = 1e300 }, { retries = 0 }, { retries = 1000000 }, { retries = 3.0 },
        { retry_on = {} },
        { retry_on = { "error", "exit", "signal", "no_result", "timeout", "limit", "encode",
          "protocol", "spawn" } },
        { backoff = 0 }, { limits = {} },
        { limits = { memory = "1K", cpu = 1e-9, file_size = 0, result = 1, files = 0,
          processes = 0 } },
        { limits = { memory = math.maxinteger, cpu = math.huge } },
        { seed = math.mininteger }, { seed = 1.0 }, { nice = -20 }, { nice = 19 },
        { name = ("x"):rep(200) }, { keep_fds = {} }, { keep_fds = "all" },
        { keep_fds = { 0, 1, 2, 0x7FFFFFFF } }, { output = print },
        { codec = { encode = print, decode = print } },
      } do
        assert.is_table(fork_map.with(opts))
      end
    end)

    it("are copied: a table that changes later changes nothing", function()
      local opts = { timeout = 0.05, limits = { result = "1K" } }
      local view = fork_map.with(opts)
      opts.timeout = nil
      opts.limits.result = "1G"
      assert.equal("timeout", process.failure(view, sys.sleep, 20).kind)
      assert.equal("limit", process.failure(view, string.rep, "x", 2000).kind)
    end)

    it("understand sizes with units of 1024", function()
      for text, bytes in pairs { ["2K"] = 2048, ["2048"] = 2048, ["1M"] = 1 << 20 } do
        local view = fork_map.with { limits = { result = text } }
        assert.equal("limit", process.failure(view, string.rep, "x", bytes + 100).kind)
        assert.equal(bytes // 2, #view(string.rep, "x", bytes // 2))
      end
    end)
  end)

  describe("retries", function()
    -- One byte for every attempt, told through a pipe that all inherit.
    local function count_attempts(opts, fn)
      local reader, writer = sys.pipe()
      local results = table.pack(pcall(fork_map.with(opts), function()
        sys.write(writer, "x")
        return fn()
      end))
      sys.close(writer)
      local n = #sys.read(reader)
      sys.close(reader)
      return n, table.unpack(results, 1, results.n)
    end

    it("run again after a signal, an exit or no result", function()
      for _, way in ipairs {
        sys.abort, function() os.exit(1) end, function() os.exit(0) end,
      } do
        local n, ok, err = count_attempts({ retries = 2 }, way)
        assert.equal(3, n)
        assert.is_false(ok)
        assert.equal(3, err.attempt)
      end
    end)

    it("stop at the first success", function()
      local name = os.tmpname()
      local n, ok, value = count_attempts({ retries = 5 }, function()
        local file = assert(io.open(name, "a+"))
        file:write("x")
        file:seek("set")
        local attempt = #file:read("a")
        file:close()
        if attempt < 3 then
          sys.abort()
        end
        return attempt
      end)
      os.remove(name)
      assert.same({ 3, true, 3 }, { n, ok, value })
    end)

    it("do not run again for other kinds", function()
      assert.equal(1, (count_attempts({ retries = 2 }, error)))
      assert.equal(1, (count_attempts({ retries = 2 }, function() return print end)))
    end)

    it("run again for a kind that is listed, and only for these", function()
      assert.equal(3, (count_attempts({ retries = 2, retry_on = { "error" } }, error)))
      assert.equal(1, (count_attempts({ retries = 2, retry_on = { "error" } }, sys.abort)))
      assert.equal(2, (count_attempts(
        { retries = 1, retry_on = { "timeout" }, timeout = 0.2, grace = 0 },
        function() sys.sleep(20) end)))
    end)

    it("give every attempt the same random numbers", function()
      local reader, writer = sys.pipe()
      pcall(fork_map.with { retries = 1 }, function()
        sys.write(writer, math.random(1 << 30) .. "\n")
        sys.abort()
      end)
      sys.close(writer)
      local first, second = sys.read(reader):match("^(%d+)\n(%d+)\n$")
      sys.close(reader)
      assert.equal(first, second)
    end)

    it("pause as long as backoff says", function()
      local took = process.timed(fork_map.with { retries = 1, backoff = 0.05 }, sys.abort)
      assert.is_true(took >= 0.05)
    end)

    it("pause twice as long before each further attempt", function()
      local took = process.timed(fork_map.with { retries = 2, backoff = 0.02 }, sys.abort)
      assert.is_true(took >= 0.06)
    end)

    it("limit each attempt by timeout, not all of them #slow", function()
      local n = count_attempts({ retries = 1, timeout = 1, grace = 0 }, function()
        sys.sleep(0.6)
        sys.abort()
      end)
      assert.equal(2, n)
    end)
  end)

  describe("seed", function()
    local function numbers()
      return math.random(), math.random(1 << 40)
    end

    it("gives the same numbers in every call", function()
      local view = fork_map.with { seed = 42 }
      assert.same({ view(numbers) }, { view(numbers) })
      assert.not_same({ view(numbers) }, { fork_map.with { seed = 43 }(numbers) })
    end)

    it("is not the host's random state", function()
      math.randomseed(1)
      local first = { fork_map.with { seed = 42 }(numbers) }
      math.randomseed(2)
      assert.same(first, { fork_map.with { seed = 42 }(numbers) })
    end)

    it("is fresh for every child when it is not given", function()
      local seen = {}
      for _ = 1, 20 do
        local n = fork_map(math.random, 1 << 60)
        assert.is_nil(seen[n])
        seen[n] = true
      end
    end)

    it("is fresh in children of children too", function()
      local function nested()
        return fork_map(math.random, 1 << 60)
      end
      assert.not_equal(fork_map(nested), fork_map(nested))
    end)

    it("reaches math.random when the closure's environment has another randomseed", function()
      local library = package.loaded.math
      local real = library.randomseed
      library.randomseed = function() error("not for fork_map") end
      local ok, a = pcall(fork_map, math.random)
      library.randomseed = real
      assert.is_true(ok)
      assert.is_number(a)
    end)
  end)

  describe("output", function()
    it("is kept on the error with capture", function()
      local err = process.failure(fork_map.with { output = "capture" }, function()
        print("to stdout")
        io.stderr:write("to stderr")
        sys.write(1, "unbuffered")
        error("boom")
      end)
      assert.equal("to stdout\nunbuffered", (err.stdout:gsub("^(unbuffered)(.*)$", "%2%1")))
      assert.equal("to stderr", err.stderr)
      assert.equal(0, err.dropped)
    end)

    it("keeps the last 16 MB and counts what it let go", function()
      local err = process.failure(fork_map.with { output = "capture" }, function()
        io.write("begin", ("x"):rep(20 << 20), "end")
        error("boom")
      end)
      assert.equal(16 << 20, #err.stdout)
      assert.matches("xxxend$", err.stdout)
      assert.equal((4 << 20) + 8, err.dropped)
    end)

    it("does not change what a call returns", function()
      assert.equal(5, fork_map.with { output = "capture" }(function()
        print("x")
        return 5
      end))
    end)

    it("goes nowhere with discard", function()
      local target = fork_map.with { output = "discard" }(function()
        print("must not be seen")
        return sys.fds()[1]
      end)
      assert.equal("/dev/null", target)
    end)

    it("is given line by line to a function, in the caller's process", function()
      local lines = {}
      fork_map.with { output = function(line, stream)
        lines[#lines + 1] = stream .. ":" .. line
      end }(function()
        io.write("first\nsecond\n\nlast")
        io.stdout:flush()
      end)
      assert.same({ "stdout:first", "stdout:second", "stdout:", "stdout:last" }, lines)
    end)

    it("tells standard error from standard output", function()
      local lines = {}
      fork_map.with { output = function(line, stream) lines[stream] = line end }(function()
        print("out")
        io.stderr:write("err\n")
      end)
      assert.same({ stdout = "out", stderr = "err" }, lines)
    end)

    it("gives an error of the function to on_unhandled, and goes on", function()
      local seen = {}
      local engine <close> = fork_map.new {
        output = function(line) error("cannot take " .. line, 0) end,
        on_unhandled = function(err, why) seen[#seen + 1] = why .. ": " .. err end,
      }
      assert.equal(1, engine(function()
        print("a")
        print("b")
        return 1
      end))
      assert.same({ "callback: cannot take a", "callback: cannot take b" }, seen)
    end)

    it("warns of that error when there is no on_unhandled", function()
      local warnings = {}
      local engine <close> = fork_map.new {
        output = function() error("cannot take it", 0) end,
        on_warning = function(text) warnings[#warnings + 1] = text end,
      }
      engine(print, "a")
      assert.equal(1, #warnings)
      assert.matches("cannot take it", warnings[1])
    end)

    it("refuses to wait inside the function", function()
      local message
      local engine <close> = fork_map.new {}
      engine:with { output = function()
        local ok, text = pcall(engine, function() end)
        message = not ok and text
      end }(print, "a")
      assert.matches("inside a callback", message)
    end)
  end)

  describe("keep_fds", function()
    it("keeps all descriptors by default", function()
      local reader, writer = sys.pipe()
      fork_map(sys.write, writer, "x")
      assert.equal("x", sys.read(reader))
      sys.close(reader)
      sys.close(writer)
    end)

    it("leaves those of the list, and errors with the number still taken for others", function()
      local reader, writer = sys.pipe()
      local _, name, kept = fork_map.with { keep_fds = { writer } }(function()
        local rc, text = sys.read(reader)
        return rc, text, sys.write(writer, "kept")
      end)
      assert.equal("EBADF", name)
      assert.equal(4, kept)
      assert.equal("kept", sys.read(reader))
      sys.close(reader)
      sys.close(writer)
    end)

    it("gives standard input only to who asks for it", function()
      assert.equal("/dev/null", fork_map(function() return sys.fds()[0] end))
      assert.equal(sys.fds()[0], fork_map.with { keep_fds = { 0 } }(function()
        return sys.fds()[0]
      end))
    end)
  end)

  describe("nice", function()
    it("is added to the priority of the child alone", function()
      local before = sys.getpriority()
      assert.equal(before + 3, fork_map.with { nice = 3 }(sys.getpriority))
      assert.equal(before, sys.getpriority())
    end)
  end)

  describe("name", function()
    it("is in the error and before its message", function()
      local err = process.failure(fork_map.with { name = "label" }, error, "boom", 0)
      assert.equal("label", err.name)
      assert.equal("label: boom", tostring(err))
    end)

    it("is the title of the process", function()
      assert.equal("label\n", fork_map.with { name = "label" }(process.read_file,
        "/proc/self/comm"))
    end)
  end)

  describe("codec", function()
    it("can be a pair, which gets the packed values", function()
      local view = fork_map.with { codec = {
        encode = function(packed)
          return ("%d:%s"):format(packed.n, packed[1])
        end,
        decode = function(text)
          local n, first = text:match("^(%d+):(.*)$")
          return { n = tonumber(n), first }
        end,
      } }
      assert.same({ "a", nil, nil, n = 3 }, table.pack(view(function()
        return "a", nil, nil
      end)))
    end)

    for _, name in ipairs { "auto", "json", "lua", "cjson" } do
      it(("can be %q"):format(name), function()
        assert.same({ "x", { 1, 2 } }, { fork_map.with { codec = name }(function()
          return "x", { 1, 2 }
        end) })
      end)
    end

    it("is json with its refusals", function()
      local err = process.failure(fork_map.with { codec = "json" }, function()
        return { [1.5] = 1 }
      end)
      assert.equal("encode", err.kind)
      assert.matches('codec = "lua"', err.message)
    end)
  end)
end)
