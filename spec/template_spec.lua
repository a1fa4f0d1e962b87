-- SPDX-License-Identifier: MIT
-- Template processes, their commands, and what is forked off them.
local core = require "fork_map.core"
local fork_map = require "fork_map"
local process = require "support.process"
local quiet = require "support.quiet"
local sys = require "specs_core"

local after_each, before_each, describe, it = after_each, before_each, describe, it
local assert = require "luassert"

-- Functions that travel capture the globals, which specs have a proxy of.
local _ENV = load "return _ENV" () -- luacheck: ignore
-- luacheck: globals order v mine n x

-- What the function raises, which must be a fork_map.Error.
local function failure_of(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  assert.equal(fork_map.Error, getmetatable(err), tostring(err))
  return err
end

-- The text of what is raised for misuse.
local function misuse_of(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  assert.equal("string", type(err))
  return err
end

local function interpreter()
  return core.own_program()
end

local tag = core.has_templates and "" or " #not_portable"

-- Tags tell what is left out where: this is for the builds that leave out the rest.
if not core.has_templates then
  describe("a build without templates", function()
    for name, opts in pairs {
      executed = { from = "exec" },
      forked = { from = "fork" },
      default = {},
    } do
      it(("says so when one is wanted, %s"):format(name), function()
        local err = failure_of(fork_map.template, opts)
        assert.equal("spawn", err.kind)
        assert.equal("templates are not available in this build (ENOSYS)", err.message)
      end)
    end
  end)
end

describe("a template" .. tag, function()
  quiet.guard(before_each, after_each)

  local ways = {
    ["executed"] = { from = "exec" },
    ["that is a snapshot"] = { from = "fork" },
    ["of the installed program"] = { exec = {
      os.getenv("FORK_MAP_BUILD") .. "/bin/fork-map-template", package.path, package.cpath } },
    ["of the script of the rock"] = { exec = {
      interpreter(), "lua/fork-map-template", package.path, package.cpath } },
  }

  for name, way in pairs(ways) do
    describe(name, function()
      -- The options of this way, and those.
      local function with(more)
        for option, value in pairs(way) do
          more[option] = value
        end
        return more
      end

      it("is ready when all that it was told is done, and knows its process", function()
        local engine <close> = fork_map.new {}
        local t = engine:template(way)
        assert.is_true(t:wait())
        assert.equal("ready", t:status())
        assert.same({ t:pid() }, process.children())
        t:close()
        assert.equal("closed", t:status())
      end)

      it("runs functions in processes of their own, which are the host's children", function()
        local engine <close> = fork_map.new {}
        local t = engine:template(way)
        local f = t:spawn(function(...)
          local stat = io.open("/proc/self/stat"):read("a")
          return stat:match("^%d+ %b() %a (%d+)"), select("#", ...), ...
        end, 1, nil, "x", nil)
        local values = table.pack(f:await())
        assert.same({ tostring(core.own_pid()), 4, 1, nil, "x", nil, n = 6 }, values)
        assert.not_equal(t:pid(), f:usage() and f:pid())
      end)

      it("carries out require, eval and arguments in the order given", function()
        local engine <close> = fork_map.new {}
        local t = engine:template(way)
        t:eval("order = { ... }", "first")
        t:eval(function(word)
          order[#order + 1] = word
        end, "second")
        t:require("fork_map.queue", "fork_map.timers"):eval [[
          order[#order + 1] = package.loaded["fork_map.timers"] and "loaded"
        ]]
        t:send_arg("a", nil):send_arg { b = 2 }
        local list, n, a, b, c, d = t:spawn(function(...)
          return order, select("#", ...), ...
        end, "own"):await()
        assert.same({ "first", "second", "loaded" }, list)
        assert.same({ 4, "a", nil, { b = 2 }, "own" }, { n, a, b, c, d })
      end)

      it("is settled by the first error, with message and traceback", function()
        local engine <close> = fork_map.new {}
        local t = engine:template(way)
        local pid = t:pid()
        t:eval("x = 1")
        t:eval [[
          local function inner() error("it went wrong") end
          inner()
        ]]
        local later = t:spawn(function() end)
        local err = failure_of(t.wait, t)
        assert.equal("error", err.kind)
        assert.matches("it went wrong", err.message)
        assert.matches("inner", err.traceback)
        assert.equal("failed", t:status())
        for _, use in ipairs { "wait", "fork" } do
          assert.matches("it went wrong", failure_of(t[use], t).message)
        end
        assert.matches("it went wrong", failure_of(t.eval, t, "x = 2").message)
        assert.matches("it went wrong", failure_of(t.spawn, t, function() end).message)
        assert.matches("it went wrong", failure_of(later.await, later).message)
        process.eventually(function()
          engine:step(0)
          return process.state(pid) == nil
        end, "its process ends")
      end)

      it("passes descriptors of pipes, files and sockets, and leaks none", function()
        local engine <close> = fork_map.new {}
        local t = engine:template(way)
        local read_fd, write_fd = sys.pipe()
        local file = assert(io.tmpfile())
        t:send_fd(write_fd, file):send_fd { fileno = function()
          return write_fd
        end }
        assert.equal(3, t:spawn(function(a, b, c)
          for i, fd in ipairs { a, c, b } do
            local out = require("fork_map").file(fd, "w")
            out:write(("line %d\n"):format(i))
            out:close()
          end
          return 3
        end):await())
        t:close()
        sys.close(write_fd)
        local input = fork_map.file(read_fd, "r")
        assert.equal("line 1\nline 2\n", input:read("a"))
        input:close()
        file:seek("set")
        assert.equal("line 3\n", file:read("a"))
        file:close()
      end)

      it("gives typed errors when it dies, and leaves what it has forked running", function()
        local engine <close> = fork_map.new {}
        local t = engine:template(way)
        local gate_read, gate_write = sys.pipe()
        t:send_fd(gate_read)
        local running = t:spawn(function(fd)
          return require("fork_map").file(fd, "r"):read(1)
        end)
        while running:status() ~= "running" or not running:pid() do
          engine:step(0.01)
        end
        sys.kill(t:pid(), 9)
        local err = failure_of(function()
          while true do
            t:wait()
            engine:step(0.01)
          end
        end)
        assert.same({ "signal", "SIGKILL" }, { err.kind, err.signame })
        err = failure_of(t.spawn, t, function() end)
        assert.matches("killed by SIGKILL", err.message)
        sys.write(gate_write, "!")
        assert.equal("!", running:await())
        sys.close(gate_read)
        sys.close(gate_write)
      end)

      it("has time limits, exits and crashes of its calls typed as any", function()
        local engine <close> = fork_map.new {}
        local t = engine:template(with { timeout = 0.05, grace = 0 })
        local err = failure_of(t:spawn(function()
          while true do end
        end).await, (t:spawn(function()
          while true do end
        end)))
        assert.equal("timeout", err.kind)
        local plain = engine:template(way)
        local exit = plain:spawn(function()
          os.exit(7)
        end)
        assert.equal(7, failure_of(exit.await, exit).exit_code)
        local crash = plain:spawn("fork_map.nothing:nowhere")
        assert.matches("module 'fork_map.nothing' not found",
          failure_of(crash.await, crash).message)
        local raised = plain:spawn(function()
          error { code = 5 }
        end)
        assert.equal(5, failure_of(raised.await, raised).value.code)
      end)
    end)
  end

  it("is forked with what it was sent, and the original stays as it is", function()
    local engine <close> = fork_map.new {}
    local t = engine:template { from = "exec" }
    t:eval("v = 1"):send_arg("sent")
    local copy = t:fork()
    copy:eval("v = 2"):send_arg("more")
    local f = function(...)
      return v, ...
    end
    assert.same({ 2, "sent", "more" }, { copy:spawn(f):await() })
    assert.same({ 1, "sent" }, { t:spawn(f):await() })
    t:close()
    assert.same({ 2, "sent", "more" }, { copy:spawn(f):await() })
  end)

  it("is forked as it is then, though it is told more before it can be", function()
    local engine <close> = fork_map.new {}
    local t = engine:template { from = "exec" }
    local f = function(...)
      return v, ...
    end
    t:eval("v = 1"):send_arg("sent")
    local copy = t:fork()
    t:eval("v = 2"):send_arg("more")
    assert.same({ 1, "sent" }, { copy:spawn(f):await() })
    for i = 3, 100 do
      t:eval("v = ...", i)
    end
    local late = t:fork()
    t:eval("v = 0")
    assert.same({ 100, "sent", "more" }, { late:spawn(f):await() })
    assert.same({ 0, "sent", "more" }, { t:spawn(f):await() })
  end)

  it("is taken over by a function with its channel, what was sent, and arguments", function()
    local engine <close> = fork_map.new {}
    local t = engine:template { from = "exec" }
    local pid = t:pid()
    local channel <close> = t:send_arg("sent"):run(function(ch, ...)
      local n = select("#", ...)
      ch:send { n, ... }
      while true do
        local value, _, name = ch:recv()
        if name == "EOF" then
          return
        end
        ch:send(value * 2)
      end
    end, "own", nil)
    assert.same({ 3, "sent", "own" }, channel:recv())
    for i = 1, 10 do
      assert.is_true(channel:send(i))
      assert.equal(2 * i, channel:recv())
    end
    assert.equal("closed", t:status())
    assert.equal(pid, t:pid())
    assert.equal("closed", failure_of(t.eval, t, "x = 1").kind)
    channel:close()
    process.eventually(function()
      engine:step(0)
      return process.state(pid) == nil
    end, "the process ends with its channel")
  end)

  it("tells by wait() what ended the function that has taken it over", function()
    local engine <close> = fork_map.new {}
    local t = engine:template { from = "fork" }
    local channel <close> = t:run(function(ch)
      ch:recv()
      error("it went wrong")
    end)
    assert.is_true(t:wait())
    channel:send("go on")
    assert.equal("EOF", select(3, channel:recv()))
    while t:pid() do
      engine:step(0.01)
    end
    local err = failure_of(t.wait, t)
    assert.equal("error", err.kind)
    assert.matches("it went wrong", err.message)
  end)

  it("names what cannot travel", function()
    local engine <close> = fork_map.new {}
    local t = engine:template { from = "exec" }
    local captured = 1
    assert.matches('captures "captured"', misuse_of(t.spawn, t, function()
      return captured
    end))
    assert.matches('captures "captured"', misuse_of(t.run, t, function()
      return captured
    end))
    assert.matches("function of C", misuse_of(t.spawn, t, print))
    assert.matches("near <eof>", misuse_of(t.eval, t, "x ="))
    local f = t:spawn("string:format", "%s", function() end)
    local err = failure_of(f.await, f)
    assert.same({ "encode", "arg2" }, { err.kind, err.path })
    err = failure_of(t.send_arg, t, 1, { x = print })
    assert.same({ "encode", "arg2.x" }, { err.kind, err.path })
  end)

  it("raises for misuse at the caller's line, naming the option", function()
    local engine <close> = fork_map.new {}
    for text, opts in pairs {
      ['unknown option "form" (did you mean "from"?)'] = { form = "exec" },
      ['option "from" must be'] = { from = "thread" },
      ['option "exec" must be a list of strings'] = { exec = "lua" },
      ['option "exec" does not go with from = "fork"'] = { exec = { "x" }, from = "fork" },
      ['option "timeout" must be'] = { timeout = -1 },
      ['option "codec" of a template is a name'] = {
        codec = { encode = print, decode = print } },
    } do
      local message = misuse_of(engine.template, engine, opts)
      assert.is_truthy(message:find(text, 1, true), message)
    end
    local message = misuse_of(function()
      fork_map.template { form = 1 }
    end)
    assert.matches("template_spec.lua:%d+: fork_map: unknown option", message)
  end)

  it("inherits directory, environment and the ways to modules", function()
    local engine <close> = fork_map.new {}
    local path = package.path
    package.path = path .. ";/fork_map/?.lua"
    local t = engine:template { from = "exec" }
    package.path = path
    local their_path, cpath, directory, home = t:spawn(function()
      local pipe = io.popen("pwd -P")
      local here = pipe:read("l")
      pipe:close()
      return package.path, package.cpath, here, os.getenv("HOME")
    end):await()
    local pipe = io.popen("pwd -P")
    assert.same({ path .. ";/fork_map/?.lua", package.cpath, pipe:read("l"), os.getenv("HOME") },
      { their_path, cpath, directory, home })
    pipe:close()
  end)

  it("executes a program of the caller's, which serves", function()
    local engine <close> = fork_map.new {}
    local code = ("package.path, package.cpath = %q, %q mine = 'yes' "
      .. "require('fork_map').serve(arg[#arg])"):format(package.path, package.cpath)
    local t = engine:template { exec = { interpreter(), "-e", code, "-" } }
    assert.equal("yes", t:spawn(function()
      return mine
    end):await())
    local none = engine:template { exec = { "/nonexistent/program" } }
    local err = failure_of(none.wait, none)
    assert.equal("spawn", err.kind)
    assert.matches("/nonexistent/program", err.message)
    local other = engine:template { exec = { "/bin/true" } }
    assert.equal("no_result", failure_of(other.wait, other).kind)
  end)

  it("gives an executed program none of the host's descriptors", function()
    local engine <close> = fork_map.new {}
    local count = function()
      local n = 0
      for fd = 3, 1000 do
        local link = io.open("/proc/self/fdinfo/" .. fd)
        if link then
          link:close()
          n = n + 1
        end
      end
      return n
    end
    local before = engine:template { from = "exec" }:spawn(count):await()
    local fds = {}
    for i = 1, 50 do
      fds[2 * i - 1], fds[2 * i] = sys.pipe()
    end
    assert.equal(before, engine:template { from = "exec" }:spawn(count):await())
    for _, fd in ipairs(fds) do
      sys.close(fd)
    end
  end)

  it("does not fork when it has a second thread", function()
    local engine <close> = fork_map.new {}
    local t = engine:template { from = "exec" }
    t:eval [[require "specs_core".start_thread()]]
    local f = t:spawn(function() end)
    local err = failure_of(f.await, f)
    assert.equal("spawn", err.kind)
    assert.matches("more than one thread", err.message)
  end)

  it("is waited for though rubbish is collected meanwhile, by several, and in vain", function()
    local engine <close> = fork_map.new {}
    local t = engine:template { from = "exec" }
    local other = engine:task(t.wait, t)
    engine:task(function()
      for _ = 1, 3 do
        collectgarbage()
        engine:yield()
      end
    end)
    assert.is_false(t:wait(0))
    assert.is_true(t:wait(30))
    assert.is_true(other:await())
  end)

  it("is the parent's alone", function()
    local engine <close> = fork_map.new {}
    local t = engine:template { from = "fork" }
    t:wait()
    local kinds = fork_map(function()
      local seen = {}
      for verb, argument in pairs { wait = 1, fork = 1, eval = "x = 1", send_arg = 1 } do
        local _, err = pcall(t[verb], t, argument)
        seen[#seen + 1] = err.kind
      end
      return seen, t:status(), t:pid()
    end)
    assert.same({ "closed", "closed", "closed", "closed" }, kinds)
    assert.equal("ready", t:status())
  end)

  it("cancels what is asked of it, before and after the fork", function()
    local engine <close> = fork_map.new {}
    local t = engine:template { from = "exec" }
    t:wait()
    local f = t:spawn(function()
      while true do end
    end)
    assert.is_true(f:cancel())
    assert.equal("cancelled", failure_of(f.await, f).kind)
    f = t:spawn(function()
      while true do end
    end)
    while not f:pid() do
      engine:step(0.01)
    end
    f:cancel(0)
    assert.equal("cancelled", failure_of(f.await, f).kind)
    assert.equal(1, t:spawn(function()
      return 1
    end):await())
  end)

  it("gives items of a map their own random numbers, the same at every run", function()
    local engine <close> = fork_map.new {}
    local t = engine:template { from = "exec" }
    local roll = function()
      return math.random(1 << 40)
    end
    local opts = { executor = t, seed = 7 }
    local first = engine:map(4, roll, opts)
    assert.same(first, engine:map(4, roll, opts))
    assert.same(first, engine:map(4, roll, { seed = 7 }))
    assert.not_equal(first[1], first[2])
  end)

  it("takes arguments and gives results of megabytes", function()
    local engine <close> = fork_map.new {}
    local t = engine:template { from = "exec" }
    local text = ("x"):rep(1 << 20)
    local f = t:spawn(function(s)
      return s .. s
    end, text)
    assert.is_true(f:await() == text .. text)
  end)

  it("replaces futures among the arguments by their values", function()
    local engine <close> = fork_map.new {}
    local t = engine:template { from = "exec" }
    local add = function(a, b)
      return a + b
    end
    local sum = t:spawn(add, t:spawn(add, 1, 2), t:spawn(add, 3, 4))
    assert.equal(10, sum:await())
  end)

  it("captures what its calls print", function()
    local engine <close> = fork_map.new {}
    local t = engine:template { from = "exec", output = "capture" }
    local f = t:spawn(function()
      print("out")
      io.stderr:write("err")
    end)
    f:await()
    assert.same({ "out\n", "err", 0 }, { f:output() })
    local lines = {}
    local heard = engine:template { from = "exec", output = function(line, stream)
      lines[#lines + 1] = stream .. ": " .. line
    end }
    heard:spawn(function()
      print("one\ntwo")
    end):await()
    assert.same({ "stdout: one", "stdout: two" }, lines)
  end)

  it("ends with the engine, and when nobody has it", function()
    local engine = fork_map.new {}
    local t = engine:template { from = "exec" }
    t:wait()
    local pid = t:pid()
    t = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    process.eventually(function()
      engine:step(0)
      return process.state(pid) == nil
    end, "a template that nobody has ends")
    t = engine:template { from = "fork" }
    engine:close()
    assert.equal("closed", t:status())
    assert.equal("closed", failure_of(t.wait, t).kind)
    assert.same({}, process.children())
  end)

  it("leaves no zombie, idle or busy", function()
    local engine <close> = fork_map.new {}
    local t = engine:template { from = "exec" }
    local futures = {}
    for i = 1, 60 do
      futures[i] = t:spawn(function(n)
        return n
      end, i)
    end
    for i, f in ipairs(futures) do
      assert.equal(i, f:await())
    end
    engine:step(0)
    assert.same({ t:pid() }, process.children())
    assert.not_equal("Z", process.state(t:pid()))
  end)

  it("bounds the commands that wait, and has who gives more wait", function()
    local engine <close> = fork_map.new {}
    local t = engine:template { from = "exec" }
    t:eval("n = 0")
    for _ = 1, 3000 do
      t:eval("n = n + 1")
      local _, _, open = core.template_state(t.core)
      assert.is_true(open <= 1000)
    end
    assert.equal(3000, t:spawn(function()
      return n
    end):await())
  end)
end)
