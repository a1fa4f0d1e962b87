-- SPDX-License-Identifier: MIT
local channels = require "fork_map.channel"
local core = require "fork_map.core"
local pipes = require "support.remote_ends"
local fork_map = require "fork_map"
local futures = require "support.futures"
local host_loops = require "support.host_loops"
local process = require "support.process"
local server = require "fork_map.remote_server"
local sys = require "specs_core"
local talk = require "fork_map.remote_talk"

local close_all, cross, serve = pipes.close_all, pipes.cross, pipes.serve

-- Waiting for engines together makes this descriptor once.
fork_map.engine():pollfd()

-- What serves in a child of this process, and its future: `serve(read_fd, write_fd)`.
local function connect_to(serve_over)
  local engine = fork_map.engine()
  local mine, theirs = cross()
  local f = engine:spawn(function()
    close_all(mine)
    return serve_over(theirs[1], theirs[2])
  end)
  while f:status() == "queued" do
    engine:step(0)
  end
  close_all(theirs)
  return mine, f
end

-- A function of this text, which captures the globals and nothing else.
local function fn(text)
  return assert(load(("return function(...) %s end"):format(text)))()
end

local function loop_of(engine)
  engine:timeout()
  return engine.loop
end

describe("a remote template", function()
  local check, engine, t, f
  process.guard(before_each, function(found) check = found end, 3)
  before_each(function()
    engine = futures.new_engine { grace = 0 }
  end)
  after_each(function()
    if t then
      t:close()
      t = nil
    end
    if f then
      f:wait()
      f:poll()
      f = nil
    end
    assert.equal(0, loop_of(engine).n_watches)
    engine:close()
    check()
  end)

  local function open(serving)
    local ends
    ends, f = connect_to(serving or serve)
    t = engine:template { connect = ends }
    return t
  end

  -- One that somebody with these words serves, who then is silent or gone.
  local function open_to(words, is_silent)
    return open(function(read_fd, write_fd)
      sys.write(write_fd, words)
      local channel <close> = assert(channels.adopt(read_fd, write_fd))
      while is_silent and channel:recv_values() do
        is_silent = true -- until the client has gone
      end
    end)
  end

  it("is ready when the other side has said who it is", function()
    open()
    assert.equal("starting", t:status())
    assert.equal(nil, t:pid())
    assert.is_true(t:wait())
    assert.equal("ready", t:status())
    assert.equal(f:pid(), t:pid())
    t:close()
    assert.equal("closed", t:status())
    f:await()
  end)

  it("does what it is told in order, and keeps arguments for run()", function()
    open()
    assert.equal(t, t:require("string", "table"))
    assert.equal(t, t:eval("found = { ... }", 1, "two", { 3 }))
    assert.equal(t, t:eval(fn "found[#found + 1] = ...", "more"))
    assert.equal(t, t:eval([[
      package.loaded.remote_spec_module = {
        sub = { say = function(ch, ...)
          ch:send(found)
          ch:send(select("#", ...))
          ch:send({ ... })
          while ch:send(ch:recv()) do end
        end },
      }
    ]]))
    assert.equal(t, t:send_arg("first", nil))
    assert.equal(t, t:send_arg({ "second" }))
    local channel = t:run("remote_spec_module:sub.say", "last")
    assert.equal("closed", t:status())
    assert.same({ 1, "two", { 3 }, "more" }, channel:recv())
    assert.equal(4, channel:recv())
    assert.same({ [1] = "first", [3] = { "second" }, [4] = "last" }, channel:recv())
    channel:send({ "echo" })
    assert.same({ "echo" }, channel:recv())
    assert.equal("closed", process.failure(t.wait, t).kind)
    channel:close()
    f:await()
  end)

  it("leaves to the channel what comes right behind the answer to run()", function()
    local function frame(...)
      local data, format = core.encode("auto", ...)
      return "\xF0mc\1" .. string.pack("<BBI2I4", 1, format, 0, #data) .. data
    end
    open(function(read_fd, write_fd)
      local channel = assert(channels.adopt(read_fd, write_fd))
      local _, out = core.link_fds(channel.link)
      sys.write(out, frame(talk.NAME, talk.VERSION, "x", 1))
      channel:recv_values()
      channel:recv_values()
      sys.write(out, frame("done") .. frame("mine"))
      channel:recv_values()
    end)
    local channel = t:run("some:thing")
    assert.equal("mine", channel:recv())
    channel:close()
    f:await()
  end)

  it("runs calls one after the other, in processes of their own", function()
    open()
    local list = {}
    for i = 1, 10 do
      list[i] = t:spawn(fn [[
        counter = (counter or 0) + 1
        local n, half = ...
        return counter, n, nil, half
      ]], i, i / 2)
    end
    for i = 1, 10 do
      assert.same({ 1, i, nil, i / 2, n = 4 }, table.pack(list[i]:await()))
    end
    assert.equal("\0\255", t:spawn("string:reverse", "\255\0"):await())
  end)

  it("passes big arguments and values", function()
    open()
    local big = ("b"):rep(3000000)
    local back = t:spawn(function(text) return text .. "!" end, big):await()
    assert.equal(big .. "!", back)
  end)

  it("waits for arguments that are futures", function()
    open()
    local a = engine:task(function() return 20 end)
    assert.equal(21, t:spawn(function(n) return n + 1 end, a):await())
  end)

  it("brings errors with message, value and traceback", function()
    open()
    local err = process.failure(function()
      t:spawn(fn "error { code = 7 }"):await()
    end)
    assert.equal("error", err.kind)
    assert.same({ code = 7 }, err.value)
    assert.equal("string", type(err.traceback))
    err = process.failure(function() t:spawn(fn "os.exit(3)"):await() end)
    assert.equal("exit", err.kind)
    assert.equal(3, err.exit_code)
    err = process.failure(function() t:spawn("no.such.module:fn"):await() end)
    assert.equal("error", err.kind)
    assert.matches("no%.such%.module", err.message)
    err = process.failure(function() t:spawn(fn "return print"):await() end)
    assert.equal("encode", err.kind)
    assert.equal("result", err.path)
    assert.equal(1, t:spawn(function() return 1 end):await())
  end)

  it("heeds options of calls", function()
    open()
    local function spawn(opts, ...)
      return t:__spawn(assert(t:__prepare(opts)), nil, nil, ...)
    end
    local err = process.failure(function()
      spawn({ timeout = 0.05, grace = 0, name = "slow" }, function()
        while true do end
      end):await()
    end)
    assert.equal("timeout", err.kind)
    assert.equal("slow", err.name)
    local attempt = spawn({ retries = 2, retry_on = { "exit" } }, fn [[
      local n = require("fork_map").worker().attempt
      if n < 3 then os.exit(1) end
      return n
    ]]):await()
    assert.equal(3, attempt)
    local _, text = t:__prepare { codec = "json" }
    assert.matches('option "codec" cannot be used', text)
  end)

  it("gives the random numbers of a seed and an item", function()
    open()
    local function numbers(index)
      return t:__spawn({ seed = 5 }, nil, index, fn "return math.random(1 << 40)"):await()
    end
    assert.equal(numbers(1), numbers(1))
    assert.not_equal(numbers(1), numbers(2))
  end)

  it("cancels the call that runs, and those that wait", function()
    open()
    local running = t:spawn(function() while true do end end)
    local queued = t:spawn(function() return "never" end)
    local last = t:spawn(function() return "last" end)
    futures.step_until(engine, function() return running:status() == "running" end, "start")
    assert.equal("queued", queued:status())
    assert.is_true(queued:cancel())
    assert.is_true(running:cancel(0))
    assert.equal("cancelled", process.failure(running.await, running).kind)
    assert.equal("cancelled", running:status())
    assert.equal("cancelled", process.failure(queued.await, queued).kind)
    assert.equal("last", last:await())
  end)

  it("cancels a call whose future is dropped", function()
    open()
    t:spawn(function() while true do end end)
    engine:step(0)
    futures.collect(engine)
    assert.equal(1, t:spawn(function() return 1 end):await())
  end)

  it("takes part in nurseries", function()
    open()
    local ok, err = pcall(engine.nursery, engine, function(n)
      n:adopt(t:spawn(function() while true do end end))
      error("enough")
    end)
    assert.is_false(ok)
    assert.matches("enough", tostring(err))
    assert.equal(1, t:spawn(function() return 1 end):await())
  end)

  it("is waited for in tasks, and lets others run", function()
    open()
    local order = {}
    engine:run(function()
      engine:task(function()
        local value = t:spawn(function() return "remote" end):await()
        order[#order + 1] = value
      end)
      engine:yield()
      order[#order + 1] = "other"
    end)
    assert.same({ "other", "remote" }, order)
  end)

  it("fails by the first command that fails, for ever", function()
    open()
    t:eval("x = 1")
    t:eval("error 'this one'")
    t:eval("x = 2")
    local queued = t:spawn(function() return 1 end)
    for _ = 1, 2 do
      local err = process.failure(t.wait, t)
      assert.equal("error", err.kind)
      assert.matches("this one", err.message)
    end
    assert.equal("failed", t:status())
    assert.matches("this one", process.failure(queued.await, queued).message)
    assert.matches("this one", process.failure(t.eval, t, "x = 3").message)
    assert.matches("this one", process.failure(t.spawn, t, "a:b").message)
  end)

  it("names a module that is not there", function()
    open()
    t:require("no.such.thing")
    assert.matches("no%.such%.thing", process.failure(t.wait, t).message)
  end)

  it("refuses what cannot cross, at once", function()
    open()
    local captured = 1
    local function refusal(verb, ...)
      local args = table.pack(...)
      return futures.misuse(function() t[verb](t, table.unpack(args)) end)
    end
    assert.matches('captures "captured"', refusal("eval", function() return captured end))
    assert.matches('captures "captured"', refusal("spawn", function() return captured end))
    assert.matches("no descriptor can be passed to a template behind connect",
      refusal("send_fd", 0))
    assert.matches("no descriptor can be passed", refusal("fork"))
    local err = process.failure(t.send_arg, t, 1, { print })
    assert.equal("encode", err.kind)
    assert.equal("arg2[1]", err.path)
    err = process.failure(function() t:spawn("a:b", print):await() end)
    assert.equal("encode", err.kind)
    assert.equal("arg1", err.path)
    assert.matches("name of a module", refusal("require", 1))
    assert.matches("syntax error", refusal("eval", "this is no code"))
    assert.is_true(t:wait())
  end)

  it("settles everything when the connection ends", function()
    open(function(read_fd, write_fd)
      local channel = assert(channels.adopt(read_fd, write_fd))
      channel:send_values(talk.NAME, talk.VERSION, "x", 1)
      channel:recv_values()
      channel:recv_values()
      sys.kill(sys.getpid(), 9)
    end)
    local a = t:spawn(function() end)
    local b = t:spawn(function() end)
    for _, future in ipairs { a, b } do
      local err = process.failure(future.await, future)
      assert.equal("protocol", err.kind)
      assert.matches("connection to the template has ended", err.message)
    end
    assert.equal("failed", t:status())
    assert.equal("protocol", process.failure(t.wait, t).kind)
  end)

  it("notices that it has gone though nothing is asked of it", function()
    open()
    t:wait()
    sys.kill(t:pid(), 9)
    f:wait()
    assert.equal("failed", t:status())
  end)

  it("settles everything when it is closed, and when its engine is", function()
    open()
    t:wait()
    local a = t:spawn(function() while true do end end)
    engine:step(0)
    t:close()
    assert.equal("closed", process.failure(a.await, a).kind)
    f:await() -- the server and its child end
    open()
    local b = t:spawn(function() end)
    engine:close()
    assert.equal("closed", process.failure(b.await, b).kind)
    assert.equal("closed", t:status())
  end)

  it("is closed when nobody has it any more", function()
    open()
    t:wait()
    t = nil
    collectgarbage()
    collectgarbage()
    assert.is_true(f:await())
  end)

  it("says what came from somebody who is no template", function()
    for _, words in ipairs {
      "Welcome to Debian GNU/Linux\nlast login: never\n", ("\0\255"):rep(20),
    } do
      for _, is_silent in ipairs { false, true } do
        open_to(words, is_silent)
        local err = process.failure(t.wait, t)
        assert.equal("protocol", err.kind)
        assert.matches("is no template of fork_map; it said", err.message, 1, true)
        assert.truthy(err.message:find(talk.quote(words:sub(1, 12)):sub(2, -2), 1, true))
        assert.equal("failed", t:status())
        t:close()
        f:await()
      end
    end
  end)

  it("says that nothing came", function()
    open_to("")
    local err = process.failure(t.wait, t)
    assert.equal("spawn", err.kind)
    assert.matches("ended before anything was said", err.message)
  end)

  it("waits for the first word for a limited time", function()
    local patience = talk.PATIENCE
    finally(function() talk.PATIENCE = patience end)
    for _, words in ipairs { "", "login: " } do
      talk.PATIENCE = 0.05
      open_to(words, true)
      local err = process.failure(t.wait, t)
      assert.equal("spawn", err.kind)
      assert.matches("has said nothing", err.message)
      assert.truthy(err.message:find(words, 1, true))
      t:close()
      f:await()
    end
  end)

  it("tells of another version", function()
    open(function(read_fd, write_fd)
      local channel = assert(channels.adopt(read_fd, write_fd))
      channel:send_values(talk.NAME, talk.VERSION + 1, "9.9", 1)
      channel:recv_values()
      channel:recv_values()
    end)
    local err = process.failure(t.wait, t)
    assert.equal("protocol", err.kind)
    assert.matches("speaks version 2 of the protocol, this one 1", err.message)
  end)

  it("does not send code before it knows who is there", function()
    local ends
    ends, f = connect_to(function(read_fd, write_fd)
      local channel = assert(channels.adopt(read_fd, write_fd))
      local n = 0
      while channel:recv_values(core.now() + 0.05) do
        n = n + 1
      end
      return n
    end)
    t = engine:template { connect = ends }
    t:eval("secret = 1")
    t:spawn("a:b", "secret"):detach()
    engine:step(0.1)
    assert.equal(1, f:await())
  end)

  it("takes no answer that nobody expects", function()
    for _, answer in ipairs {
      { "done" }, { "values", 1, "x" }, { "values", 7, "x" }, { "error", 1, { kind = "error" } },
      { "failed", { kind = "error", message = "m" } }, { "error", 1, 5 }, { 42 }, { {} },
      { "no verb" }, { "__index" },
    } do
      open(function(read_fd, write_fd)
        local channel = assert(channels.adopt(read_fd, write_fd))
        channel:send_values(talk.NAME, talk.VERSION, "x", 1)
        channel:recv_values()
        if answer[1] == "error" then
          channel:recv_values()
        end
        channel:send_values(table.unpack(answer))
        channel:recv_values()
      end)
      local a
      if answer[1] == "error" then
        a = t:spawn(function() end)
      else
        a = engine:task(function()
          t:wait()
          t:eval("return")
          t.remote.n_open = t.remote.n_open - 1 -- as if nothing were asked
          t:wait()
          futures.step_until(engine, function() return t:status() == "failed" end, "the end")
          t:wait()
        end)
      end
      local err = process.failure(a.await, a)
      assert.equal("protocol", err.kind)
      t:close()
      f:wait()
      f:poll()
    end
  end)

  it("connects by a function, by files and by one socket", function()
    local ends
    ends, f = connect_to(serve)
    local reader, writer = fork_map.file(ends[1]), fork_map.file(ends[2], "w")
    t = engine:template { connect = function() return reader, writer end }
    assert.is_true(t:wait())
    t:close()
    reader:close()
    writer:close()
    f:await()

    local here, there = channels.pair()
    f = engine:spawn(function()
      return server.serve(assert(channels.adopt(there)))
    end)
    while f:status() == "queued" do
      engine:step(0)
    end
    core.close_fd(there)
    t = engine:template { connect = { here } }
    here:close()
    assert.equal(3, t:spawn(function() return 3 end):await())
  end)

  it("says why there is no connection", function()
    local function why(connect)
      local err = process.failure(engine.template, engine, { connect = connect })
      assert.equal("spawn", err.kind)
      return err.message
    end
    assert.matches("connect: no route", why(function() return nil, "no route" end))
    assert.matches("connect: .*refused", why(function() error("refused") end))
    assert.matches("connect: it gave nothing", why(function() end))
    assert.matches("connect: a descriptor, a file", why(function() return {} end))
    assert.matches("connect: Bad file descriptor", why(999))
    assert.matches("connect: Bad file descriptor", why({ 0, -1 }))
  end)

  it("cannot be used in a child of its process", function()
    open()
    t:wait()
    assert.equal("closed", engine(function()
      return select(2, pcall(t.eval, t, "return")).kind
    end))
    assert.is_true(t:wait())
  end)

  it("is served over the standard streams of a program", function()
    local mine, theirs = cross()
    local program = ([[exec env LUA_PATH='%s' LUA_CPATH='%s' lua5.4 -e '
      assert(require("fork_map.remote_server").serve_standard())' </dev/fd/%d >/dev/fd/%d]])
      :format(package.path, package.cpath, theirs[1], theirs[2])
    f = engine:spawn(function()
      close_all(mine)
      return os.execute(program)
    end)
    while f:status() == "queued" do
      engine:step(0)
    end
    close_all(theirs)
    t = engine:template { connect = mine }
    t:eval("print('to standard error?') x = 5")
    assert.equal(5, t:spawn(fn "return x"):await())
    t:close()
    assert.is_true(f:await())
  end)
end)

for _, name in ipairs { "luv", "cqueues", "copas", "tiny" } do
  host_loops.describe(name, function(world, host)
    it("suspends coroutines of the loop that wait for a remote template", function()
      local ends, f = connect_to(serve)
      local t = world.engine:template { connect = ends }
      local order = {}
      host.go(function()
        local is_ready = t:wait()
        order[#order + 1] = is_ready and "ready"
        local value = t:spawn(fn "return 'value'"):await()
        order[#order + 1] = value
      end)
      assert.same({}, host.run())
      assert.same({ "ready", "value" }, order)
      t:close()
      f:await()
    end)

    it("suspends coroutines of the loop that wait for a channel", function()
      local a, fd = channels.pair(loop_of(world.engine))
      local b = assert(channels.adopt(fd, nil, loop_of(world.engine)))
      local got
      host.go(function()
        got = b:recv()
      end)
      host.go(function()
        a:send { "value" }
      end)
      assert.same({}, host.run())
      assert.same({ "value" }, got)
      a:close()
      b:close()
    end)
  end)
end
