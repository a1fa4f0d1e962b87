-- SPDX-License-Identifier: MIT
-- Hosts that wait for descriptors themselves, and what an engine costs them while
-- it has nothing to do.
local fork_map = require "fork_map"
local process = require "support.process"
local sys = require "specs_core"

local function double(x)
  return 2 * x
end

describe("future:pollfd() #not_portable", function()
  process.guard(before_each, after_each)

  it("is readable from the moment on that the future has settled", function()
    local engine <close> = fork_map.new()
    local f, g = engine:spawn(double, 1), engine:spawn(double, 2)
    local fd = f:pollfd()
    while not f:wait(0) do
      assert.is_true(sys.is_readable(fd, 10))
    end
    g:await()
    assert.is_true(sys.is_readable(fd))
    assert.is_true(sys.is_readable(fd))
    assert.same({ "r", 0 }, { f:events(), f:timeout() })
    assert.is_true(sys.is_readable(g:pollfd()))
  end)

  it("is not readable while there is nothing to do", function()
    local engine <close> = fork_map.new { grace = 0 }
    local f = engine:spawn(sys.sleep, 100)
    local fd = f:pollfd()
    while engine:step(0) > 0 or sys.is_readable(fd, 0.05) do end
    assert.is_false(sys.is_readable(fd))
    assert.is_false(sys.is_readable(engine:pollfd()))
    f:cancel(0)
    while not f:wait(0) do
      assert.is_true(sys.is_readable(fd, 10))
    end
  end)

  it("gives back descriptors of futures that are garbage when they run out", function()
    assert.equal(300, fork_map(function()
      collectgarbage("stop")
      sys.setrlimit("nofile", 200)
      local engine = fork_map.new()
      local n = 0
      for i = 1, 300 do
        local f = engine:spawn(double, i)
        f:pollfd()
        n = n + f:await() // (2 * i)
      end
      return n
    end))
  end)
end)

describe("cqueues.poll(future) #not_portable", function()
  local ok, cqueues = pcall(require, "cqueues")
  if not ok then
    pending("cqueues is not installed")
    return
  end
  process.guard(before_each, after_each)

  local function await(f)
    repeat
      cqueues.poll(f)
    until f:wait(0)
    return f:await()
  end

  local function run(controller)
    for err in controller:errors() do
      error(err, 0)
    end
    controller:close()
  end

  it("waits in several coroutines, each for futures of its own", function()
    local engine <close> = fork_map.new()
    local controller, n = cqueues.new(), 0
    for i = 1, 10 do
      controller:wrap(function()
        for k = 1, 5 do
          assert(await(engine:spawn(double, i * k)) == 2 * i * k)
          n = n + 1
        end
      end)
    end
    run(controller)
    assert.equal(50, n)
  end)

  it("waits for the first of several futures, and for time", function()
    local engine <close> = fork_map.new { grace = 0 }
    local controller, first = cqueues.new(), nil
    controller:wrap(function()
      local slow, quick = engine:spawn(sys.sleep, 100), engine:spawn(double, 1)
      repeat
        cqueues.poll(slow, quick)
      until slow:wait(0) or quick:wait(0)
      first = quick:status()
      local began = sys.now()
      cqueues.poll(slow, 0.02)
      assert(sys.now() - began < 50)
      slow:cancel(0)
    end)
    run(controller)
    assert.equal("done", first)
  end)

  it("wakes coroutines of which another one has stepped the engine", function()
    local engine <close> = fork_map.new()
    local controller, woken = cqueues.new(), 0
    local futures = {}
    for i = 1, 20 do
      futures[i] = engine:spawn(double, i)
    end
    for i = 1, 20 do
      controller:wrap(function()
        await(futures[i])
        woken = woken + 1
      end)
    end
    controller:wrap(function()
      for i = 1, 20 do
        futures[i]:wait()
      end
    end)
    run(controller)
    assert.equal(20, woken)
  end)

  -- More at once the kernel does not take: see docs/limits.md.
  it("loses no wake-up of a thousand futures, eighty at once #slow", function()
    local engine <close> = fork_map.new()
    local controller, n = cqueues.new(), 0
    for i = 1, 80 do
      controller:wrap(function()
        for k = i, 1000, 80 do
          assert(await(engine:spawn(double, k)) == 2 * k)
          n = n + 1
        end
      end)
    end
    run(controller)
    assert.equal(1000, n)
  end)
end)

-- ------------------------------------------------------------------------ idle

-- What a program of Lua does after it has printed to descriptor 9 (which marks the
-- place in the list of its system calls), as strace tells it; nil where that is
-- refused.
local function trace(program)
  local name = os.tmpname()
  local log = name .. ".strace"
  local file <close> = assert(io.open(name, "w"))
  file:write(([[
    package.path, package.cpath = %q, %q
    local fork_map, sys = require "fork_map", require "specs_core"
    local function mark(text) sys.write(2, "mark " .. text) end
  ]]):format(package.path, package.cpath), program)
  file:close()
  local done = os.execute(("strace -f -o %s lua5.4 %s 2>/dev/null"):format(log, name))
  local text = process.read_file(log)
  os.remove(name)
  os.remove(log)
  if not done then
    return nil, text
  end
  local calls, is_inside = {}, false
  for line in text:gmatch("[^\n]+") do
    local what = line:match('write%(2, "mark (%a+)')
    if what then
      is_inside = what == "begin"
    elseif is_inside then
      calls[#calls + 1] = line:gsub("^%d+%s+", "")
    end
  end
  return calls
end

-- Also where there is a strace it may be forbidden.
local can_trace = not sys.sanitized and os.execute("strace -o /dev/null true 2>/dev/null")

describe("an engine that is idle #not_asan", function()
  if not can_trace then
    pending("there is no strace, or it is refused")
    return
  end

  it("makes no system call in step(0)", function()
    local calls, text = trace [[
      local engine = fork_map.new()
      engine:spawn(function() end):await()
      engine:pollfd()
      engine:step(0)
      mark "begin"
      for _ = 1, 1000 do engine:step() end
      mark "end"
      engine:close()
    ]]
    assert.same({}, calls, text)
  end)

  it("wakes nobody who waits for its descriptor #not_portable #slow", function()
    local calls, text = trace [[
      local engine = fork_map.new()
      local f = engine:spawn(function() end)
      f:await()
      local fd = engine:pollfd()
      engine:step(0)
      mark "begin"
      assert(not sys.is_readable(fd, 1))
      mark "end"
      engine:close()
    ]]
    assert.equal(1, calls and #calls, text)
    assert.matches("^poll", calls[1])
  end)

  it("wakes nobody while a child computes #not_portable #slow", function()
    local calls, text = trace [[
      local engine = fork_map.new { grace = 0 }
      local f = engine:spawn(sys.sleep, 100)
      local fd = engine:pollfd()
      while engine:step(0) > 0 or sys.is_readable(fd, 0.1) do end
      mark "begin"
      assert(not sys.is_readable(fd, 1))
      mark "end"
      f:cancel(0)
      engine:close()
    ]]
    local own = {}
    for _, call in ipairs(calls or {}) do
      if call:find("^poll") then
        own[#own + 1] = call
      end
    end
    assert.equal(1, #own, text)
  end)

  it("costs an attached host nothing #not_portable #slow", function()
    if not pcall(require, "luv") then
      pending("luv is not installed")
      return
    end
    local calls, text = trace [[
      local uv = require "luv"
      local engine = fork_map.new()
      engine:attach("luv")
      coroutine.wrap(function() engine:spawn(function() end):await() end)()
      uv.run()
      local timer = uv.new_timer()
      timer:start(1000, 0, function() timer:close() end)
      mark "begin"
      uv.run()
      mark "end"
      engine:close()
    ]]
    local waits = 0
    for _, call in ipairs(calls or {}) do
      waits = waits + (call:find("^epoll_p?wait") and 1 or 0)
    end
    assert.is_true(waits >= 1 and waits <= 2, text)
    assert.is_true(#calls <= 3, table.concat(calls, "\n"))
  end)
end)
