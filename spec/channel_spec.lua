-- SPDX-License-Identifier: MIT
local channels = require "fork_map.channel"
local core = require "fork_map.core"
local descriptors = require "support.descriptors"
local fork_map = require "fork_map"
local futures = require "support.futures"
local process = require "support.process"
local sys = require "specs_core"

-- What closes these at the end of a block.
local function closer(...)
  local all = { ... }
  return setmetatable({}, { __close = function()
    for _, channel in ipairs(all) do
      channel:close()
    end
  end })
end

-- Both ends, in this process.
local function new_pair()
  local a, fd = channels.pair()
  local b = assert(channels.adopt(fd))
  return a, b, closer(a, b)
end

-- The same over two pipes.
local function new_pipes()
  local there_r, there_w = sys.pipe()
  local back_r, back_w = sys.pipe()
  local a = assert(channels.adopt(back_r, there_w))
  local b = assert(channels.adopt(there_r, back_w))
  return a, b, closer(a, b)
end

local function failure_name(...)
  assert.equal(3, select("#", ...))
  local nothing, message, name = ...
  assert.equal(nil, nothing)
  assert.equal("string", type(message))
  return name
end

-- `fn(channel)` in a child that has the other end; its future and this end.
local function with_child(fn)
  local channel, fd = channels.pair()
  local f = fork_map.spawn(function()
    return fn(assert(channels.adopt(fd)))
  end)
  while f:status() == "queued" do
    fork_map.engine():step(0)
  end
  core.close_fd(fd)
  return channel, f, closer(channel)
end

local function echo(channel)
  while true do
    local values = table.pack(channel:recv())
    if values.n == 3 then
      return values[3]
    end
    channel:send(values[1])
  end
end

local VALUES = {
  1, -1, 0, math.maxinteger, math.mininteger, 0.5, -0.0, 1e308, "", "x", "\0\255\n",
  true, false, {}, { 1, 2, 3 }, { a = { b = { "c" } } }, { [1.5] = 2, [7] = true },
}

for kind, open in pairs { sockets = new_pair, pipes = new_pipes } do
  describe("a channel over " .. kind, function()
    process.guard(before_each, after_each, 2)

    it("brings values as they are, in the order sent, both ways", function()
      local a, b, _ <close> = open()
      for i, value in ipairs(VALUES) do
        assert.is_true(a:send(value))
        assert.is_true(b:send({ i, value }))
      end
      for i, value in ipairs(VALUES) do
        local got = b:recv()
        assert.same(value, got)
        assert.equal(math.type(value), math.type(got))
        assert.same({ i, value }, a:recv())
      end
    end)

    it("brings nil as one value", function()
      local a, b, _ <close> = open()
      a:send(nil)
      a:send()
      for _ = 1, 2 do
        local results = table.pack(b:recv())
        assert.equal(1, results.n)
        assert.equal(nil, results[1])
      end
    end)

    it("brings NaN, shared tables and cycles", function()
      local a, b, _ <close> = open()
      local t = { 0 / 0 }
      t.self = t
      a:send(t)
      local got = b:recv()
      assert.equal(got, got.self)
      assert.not_equal(got[1], got[1])
    end)

    it("says what cannot cross, and goes on", function()
      local a, b, _ <close> = open()
      local _, message, name = a:send({ deep = { print } })
      assert.equal("EENCODE", name)
      assert.matches("^value%.deep%[1%]: ", message)
      a:send("next")
      assert.equal("next", b:recv())
    end)

    it("tells of the end after what was sent", function()
      local a, b, _ <close> = open()
      a:send(1)
      a:close()
      assert.equal(1, b:recv())
      assert.equal("EOF", failure_name(b:recv()))
      assert.equal("EOF", failure_name(b:recv(0)))
      assert.equal("EOF", failure_name(b:recv_fd()))
      assert.equal("EPIPE", failure_name(b:send(1)))
    end)

    it("waits no longer than it may, and loses nothing", function()
      local a, b, _ <close> = open()
      assert.equal("ETIMEDOUT", failure_name(b:recv(0)))
      assert.equal("ETIMEDOUT", failure_name(b:recv(0.01)))
      a:send("late")
      assert.equal("late", b:recv(0))
    end)

    it("keeps back who sends until the other end reads", function()
      local a, b, _ <close> = open()
      local big = ("x"):rep(3000000)
      local sent = {}
      fork_map.run(function()
        fork_map.task(function()
          for i = 1, 5 do
            a:send(big .. i)
            sent[#sent + 1] = i
          end
        end)
        fork_map.yield()
        assert.same({}, sent)
        for i = 1, 5 do
          assert.equal(big .. i, b:recv())
          assert.is_true(#sent <= i + 1)
        end
      end)
      assert.same({ 1, 2, 3, 4, 5 }, sent)
    end)

    it("never mixes what tasks send at once", function()
      local a, b, _ <close> = open()
      local n_tasks, n_each = 5, 20
      local seen, last = 0, {}
      fork_map.run(function()
        for task = 1, n_tasks do
          fork_map.task(function()
            for i = 1, n_each do
              a:send { task, i, (tostring(task)):rep(i * 5000) }
            end
          end)
        end
        for _ = 1, 2 do -- two that receive
          fork_map.task(function()
            while seen < n_tasks * n_each do
              local value = b:recv(5)
              if not value then
                break
              end
              seen = seen + 1
              assert.equal((tostring(value[1])):rep(value[2] * 5000), value[3])
              assert.is_true(value[2] > (last[value[1]] or 0))
              last[value[1]] = value[2]
              if seen == n_tasks * n_each then
                a:close()
              end
            end
          end)
        end
      end)
      assert.equal(n_tasks * n_each, seen)
    end)

    it("goes on after a cancel in the middle of a long value, in both directions", function()
      local a, b, _ <close> = open()
      local big = ("y"):rep(3000000)
      local sender = fork_map.task(function() a:send(big) end)
      local engine = fork_map.engine()
      engine:step(0)
      assert.is_false(core.link_recv(b.link)) -- it has some of it
      local reader = fork_map.task(function() b:recv() end)
      engine:step(0)
      sender:cancel()
      reader:cancel()
      sender:wait()
      reader:wait()
      assert.equal("cancelled", sender:status())
      assert.equal("cancelled", reader:status())
      fork_map.run(function()
        fork_map.task(function() a:send("after") end)
        assert.equal(big, b:recv())
        assert.equal("after", b:recv())
      end)
    end)

    it("fails what waits for it when it is closed", function()
      local a, b, _ <close> = open()
      local f = fork_map.task(function() return b:recv() end)
      local g = fork_map.task(function() return a:send(("z"):rep(3000000)) end)
      fork_map.engine():step(0)
      b:close()
      a:close()
      assert.equal("ECLOSED", failure_name(f:await()))
      assert.equal("ECLOSED", failure_name(g:await()))
      for _, verb in ipairs { "send", "recv", "recv_fd" } do
        assert.equal("ECLOSED", failure_name(a[verb](a)))
      end
      assert.equal("ECLOSED", failure_name(a:send_fd(0)))
      assert.equal(nil, a:fileno())
      assert.equal(nil, a:pollfd())
      assert.is_true(a:close())
    end)

    it("has a descriptor that tells of what can be received", function()
      local a, b, _ <close> = open()
      assert.is_false(sys.is_readable(b:pollfd()))
      a:send(1)
      a:send(2)
      assert.is_true(sys.is_readable(b:pollfd()))
      b:recv()
      assert.is_true(sys.is_readable(b:pollfd()))
      b:recv()
      assert.is_false(sys.is_readable(b:pollfd()))
      a:close()
      assert.is_true(sys.is_readable(b:pollfd()))
    end)

    it("is given back when nobody has it any more", function()
      local before = descriptors.count()
      do
        local a, b = open()
        a:send(1)
        b:recv()
      end
      assert.equal(before, descriptors.count())
    end)
  end)
end

describe("a channel", function()
  process.guard(before_each, after_each, 2)

  it("leads to a child, which waits on its own engine", function()
    local channel, f, _ <close> = with_child(echo)
    for _, value in ipairs(VALUES) do
      channel:send(value)
      assert.same(value, channel:recv())
    end
    channel:close()
    assert.equal("EOF", f:await())
  end)

  it("brings a value of a megabyte there and back", function()
    local channel, f, _ <close> = with_child(echo)
    local big = ("m"):rep(1 << 20)
    fork_map.run(function()
      fork_map.task(function() channel:send(big) end)
      assert.equal(big, channel:recv())
    end)
    channel:close()
    f:await()
  end)

  it("is EOF when the child dies, and EPIPE to who sends", function()
    local channel, f, _ <close> = with_child(function() sys.kill(sys.getpid(), 9) end)
    assert.equal("EOF", failure_name(channel:recv()))
    assert.equal("EPIPE", failure_name(channel:send(1)))
    assert.equal("signal", process.failure(f.await, f).kind)
  end)

  it("is EPROTOCOL when the child dies within a value", function()
    local channel, f, _ <close> = with_child(function(there)
      fork_map.task(function() there:send(("x"):rep(3000000)) end)
      fork_map.engine():step(0)
      sys.kill(sys.getpid(), 9)
    end)
    f:wait() -- nobody has read until then, so not all of it went
    f:poll()
    assert.equal("EPROTOCOL", failure_name(channel:recv()))
    assert.equal("EPROTOCOL", failure_name(channel:recv()))
  end)

  it("lets go of who waits for a child that dies", function()
    local gate <close> = futures.gate()
    local channel, f, _ <close> = with_child(function()
      gate.wait()
    end)
    local task = fork_map.task(function()
      return channel:send(("x"):rep(3000000))
    end)
    fork_map.engine():step(0)
    gate.open()
    assert.equal("EPIPE", failure_name(task:await()))
    f:await()
  end)

  it("cannot be used in a child of its process", function()
    local a, b, _ <close> = new_pair()
    local kinds = fork_map(function()
      local found = {}
      for _, verb in ipairs { "send", "recv", "recv_fd", "fileno", "close" } do
        local ok, err = pcall(a[verb], a)
        found[verb] = not ok and err.kind
      end
      return found
    end)
    assert.same({ send = "closed", recv = "closed", recv_fd = "closed", fileno = "closed",
      close = "closed" }, kinds)
    fork_map(function()
      a, b = nil, nil -- luacheck: ignore
      collectgarbage()
    end)
    a:send(1)
    assert.equal(1, b:recv())
  end)

  it("is not held open by children of its process", function()
    local a, b, _ <close> = new_pair()
    local gate <close> = futures.gate()
    local f = fork_map.spawn(gate.wait)
    while f:status() == "queued" do
      fork_map.engine():step(0)
    end
    a:close()
    assert.equal("EOF", failure_name(b:recv()))
    gate.open()
    f:await()
  end)

  it("is closed at the end of its block", function()
    local a, b, _ <close> = new_pair()
    do
      local _ <close> = a -- luacheck: ignore
    end
    assert.equal("EOF", failure_name(b:recv()))
  end)

  it("suspends no more than its task", function()
    local a, b, _ <close> = new_pair()
    local order = {}
    fork_map.run(function()
      fork_map.task(function()
        local value = b:recv()
        order[#order + 1] = value
      end)
      fork_map.yield()
      order[#order + 1] = "other"
      a:send("value")
    end)
    assert.same({ "other", "value" }, order)
  end)

  it("is misused at the caller's line", function()
    local a, b, _ <close> = new_pair()
    assert.matches("^spec/channel_spec.lua:%d+: fork_map: channel:recv: seconds must be",
      futures.misuse(function() a:recv(-1) end))
    assert.matches("^spec/channel_spec.lua:%d+: fork_map: channel:recv: call it with a colon",
      futures.misuse(function() a.recv() end))
    assert.matches("^spec/channel_spec.lua:%d+: fork_map: channel:send_fd: a descriptor",
      futures.misuse(function() a:send_fd({}) end))
    b:close()
  end)

  it("cannot wait in a callback", function()
    local a, b, _ <close> = new_pair()
    local f = fork_map.task(function() end)
    local said
    f:on_settle(function()
      said = select(2, pcall(a.recv, a))
    end)
    futures.step_until(fork_map.engine(), function() return said end, "the callback")
    assert.matches("inside a callback", said)
    b:close()
  end)

  it("does not take bytes that are not of a channel", function()
    for _, bytes in ipairs {
      "Welcome to example.org\n", ("\0"):rep(64), "\xF0mc\2" .. ("\0"):rep(8),
      "\xF0mc\1\1\1\0\0\255\255\255\255", "\xF0mc\1\3\0\0\0\0\0\0\0",
      "\xF0mc\1\1\9\0\0\1\0\0\0x", "\xF0mc\1\1\1\0\0\2\0\0\0{x",
      "\xF0mc\1\1\1\0\0\0\0\0\0", "\xF0mc\1\1\1\0\0\4\0\0\0001\n2\n",
    } do
      local r, w = sys.pipe()
      local back_r, back_w = sys.pipe()
      local channel <close> = assert(channels.adopt(r, back_w))
      sys.write(w, bytes)
      assert.equal("EPROTOCOL", failure_name(channel:recv(5)))
      sys.close(w)
      sys.close(back_r)
    end
  end)
end)

describe("channel:send_fd()", function()
  process.guard(before_each, after_each, 2)

  it("sends numbers, files and what has a method for it", function()
    local a, b, _ <close> = new_pair()
    local r, w = sys.pipe()
    local file <close> = assert(fork_map.file(core.copy_fd(w), "w"))
    for _, what in ipairs {
      w, file,
      { fileno = function() return w end }, { getfd = function() return w + 0.0 end },
      { fd = function() return w end },
    } do
      assert.is_true(a:send_fd(what))
      local fd = assert(b:recv_fd())
      assert.is_true(fd >= 3)
      local copy = assert(fork_map.file(fd, "w"))
      copy:write("hello")
      copy:close()
      assert.equal("hello", sys.read(r))
    end
    sys.close(r)
    sys.close(w)
  end)

  it("sends a copy that is made at once", function()
    local a, b, _ <close> = new_pair()
    local r, w = sys.pipe()
    a:send_fd(w)
    sys.close(w)
    local copy <close> = assert(fork_map.file(assert(b:recv_fd()), "w"))
    copy:write("x"):flush()
    assert.equal("x", sys.read(r))
    sys.close(r)
  end)

  it("flushes a file before", function()
    local a, b, _ <close> = new_pair()
    local r, w = sys.pipe()
    local file <close> = assert(fork_map.file(w, "w"))
    file:write("first ")
    a:send_fd(file)
    local copy <close> = assert(fork_map.file(assert(b:recv_fd()), "w"))
    copy:write("second"):flush()
    assert.equal("first second", sys.read(r))
    sys.close(r)
  end)

  it("keeps the order of values and descriptors", function()
    local a, b, _ <close> = new_pair()
    a:send_fd(0)
    a:send("value")
    assert.equal("EBADMSG", failure_name(b:recv()))
    assert.equal("EBADMSG", failure_name(b:recv(0)))
    assert.is_true(sys.is_readable(b:pollfd()))
    core.close_fd(assert(b:recv_fd()))
    assert.equal("EBADMSG", failure_name(b:recv_fd()))
    assert.equal("value", b:recv())
    assert.equal("ETIMEDOUT", failure_name(b:recv_fd(0)))
  end)

  it("says what has none", function()
    local a, b, _ <close> = new_pair()
    assert.equal("EBADF", failure_name(a:send_fd(999)))
    assert.equal("EBADF", failure_name(a:send_fd(-1)))
    local file = io.tmpfile()
    file:close()
    assert.matches("the file is closed", futures.misuse(function() a:send_fd(file) end))
    assert.matches("it has no descriptor", futures.misuse(function()
      a:send_fd { fileno = function() return nil end }
    end))
    a:send(1)
    assert.equal(1, b:recv())
  end)

  it("is refused over pipes", function()
    local a, b, _ <close> = new_pipes()
    assert.equal("ENOTSOCK", failure_name(a:send_fd(0)))
    a:send(1)
    assert.equal(1, b:recv())
  end)

  it("leaves no descriptor that nobody took", function()
    local before = descriptors.count()
    local a, b = new_pair()
    for _ = 1, 10 do
      a:send_fd(0)
    end
    b:recv()
    a:close()
    b:close()
    assert.equal(before, descriptors.count())
  end)

  it("waits as send() does, and lets go of the copy when it is cancelled", function()
    local a, b, _ <close> = new_pair()
    local big = ("x"):rep(3000000)
    local sender = fork_map.task(function() a:send(big) end)
    fork_map.engine():step(0)
    local before = descriptors.count()
    local f = fork_map.task(function() a:send_fd(0) end)
    fork_map.engine():step(0)
    assert.equal(before + 1, descriptors.count())
    f:cancel()
    f:wait()
    assert.equal(before, descriptors.count())
    fork_map.run(function()
      assert.equal(big, b:recv())
    end)
    sender:await()
    assert.equal("ETIMEDOUT", failure_name(b:recv_fd(0)))
  end)

  it("crosses to a child", function()
    local r, w = sys.pipe()
    local channel, f, _ <close> = with_child(function(there)
      local copy <close> = assert(fork_map.file(assert(there:recv_fd()), "w"))
      copy:write(there:recv())
    end)
    channel:send_fd(w)
    channel:send("over there")
    f:await()
    assert.equal("over there", sys.read(r))
    sys.close(r)
    sys.close(w)
  end)
end)

describe("fork_map.file()", function()
  process.guard(before_each, after_each)

  it("makes a file that closes its descriptor", function()
    local r, w = sys.pipe()
    local reader, writer = fork_map.file(r), fork_map.file(w, "w")
    assert.equal("file", io.type(reader))
    writer:write("line\n")
    writer:close()
    assert.equal("line", reader:read("l"))
    assert.equal(nil, reader:read("l"))
    assert.is_true(reader:close())
    assert.equal("closed file", io.type(reader))
  end)

  it("closes it when it is collected", function()
    local r, w = sys.pipe()
    local before = descriptors.count()
    do
      local _ = fork_map.file(r)
      _ = fork_map.file(w, "w") -- luacheck: ignore
    end
    assert.equal(before - 2, descriptors.count())
  end)

  it("says what is no descriptor", function()
    assert.equal("EBADF", failure_name(fork_map.file(999)))
  end)

  it("is misused at the caller's line", function()
    assert.matches("^spec/channel_spec.lua:%d+: fork_map.file: a descriptor is expected",
      futures.misuse(function() fork_map.file("x") end))
    assert.matches("^spec/channel_spec.lua:%d+: fork_map.file: the mode",
      futures.misuse(function() fork_map.file(0, "x") end))
  end)
end)
