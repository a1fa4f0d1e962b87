-- SPDX-License-Identifier: MIT
-- What a child does when it is asked to end.
local fork_map = require "fork_map"
local process = require "support.process"
local project = require "support.project"
local sys = require "specs_core"

describe("a child with on_cancel", function()
  local dir

  process.guard(before_each, after_each, 4)

  setup(function()
    dir = project.make_directory()
  end)

  teardown(function()
    project.remove(dir)
  end)

  before_each(function()
    os.execute("rm -f " .. project.quote(dir) .. "/*")
  end)

  local function touch(name, text)
    local file <close> = assert(io.open(dir .. "/" .. name, "a"))
    file:write(text or "x")
  end

  local function read(name)
    local file <close> = io.open(dir .. "/" .. name)
    return file and file:read("a")
  end

  local function wait_for(name)
    while not read(name) do
      sys.sleep(0.001)
    end
  end

  -- Cancel `fn` once it has touched the file "ready".
  local function cancel(fn, opts)
    local f = fork_map.with(opts or { grace = 20 }):spawn(fn)
    wait_for("ready")
    assert.is_true(f:cancel())
    assert.is_true(f:wait(30))
    return f
  end

  it("tidies up when it is cancelled, the last function first, and is cancelled", function()
    local f = cancel(function()
      fork_map.on_cancel(function() touch("log", "first ") end)
      fork_map.on_cancel(function() touch("log", "last ") end)
      touch("ready")
      while true do end
    end)
    assert.equal("cancelled", f:status())
    assert.equal("last first ", read("log"))
  end)

  it("does so out of a system call, a coroutine, a nested call and a callback of C", function()
    local places = {
      call = function() os.execute("sleep 30") end,
      coroutine = function()
        coroutine.wrap(function() while true do coroutine.wrap(function() end)() end end)()
      end,
      nested = function()
        local function deep(n) if n > 0 then deep(n - 1) else while true do end end end
        deep(150)
      end,
      callback = function()
        table.sort({ 1, 2, 3 }, function() while true do end end)
      end,
      protected = function()
        while true do pcall(error, "no") end
      end,
    }
    for name, place in pairs(places) do
      local f = cancel(function()
        fork_map.on_cancel(function() touch(name) end)
        touch("ready")
        while true do place() end
      end)
      assert.equal("cancelled", f:status(), name)
      assert.equal("x", read(name), name)
      os.remove(dir .. "/ready")
    end
  end)

  it("goes on to the next function when one raises, and says so", function()
    local f = cancel(function()
      fork_map.on_cancel(function() touch("log", "second") end)
      fork_map.on_cancel(function() error("no way", 0) end)
      touch("ready")
      while true do end
    end, { grace = 20, output = "capture" })
    assert.equal("cancelled", f:status())
    assert.equal("second", read("log"))
    local _, stderr = f:output()
    assert.equal("fork_map.on_cancel: no way\n", stderr)
  end)

  it("flushes what it has printed", function()
    local f = cancel(function()
      fork_map.on_cancel(function() io.write("bye\n") end)
      io.stdout:setvbuf("full")
      io.write("hello\n")
      touch("ready")
      while true do end
    end, { grace = 20, output = "capture" })
    assert.equal("hello\nbye\n", (f:output()))
  end)

  it("is killed when it takes longer than its grace", function()
    local f = cancel(function()
      fork_map.on_cancel(function() touch("began") while true do end end)
      touch("ready")
      while true do end
    end, { grace = 0.2 })
    assert.equal("cancelled", f:status())
    assert.equal("x", read("began"))
  end)

  it("gives its result when it is not cancelled", function()
    local ran = fork_map(function()
      fork_map.on_cancel(function() touch("log") end)
      return "value"
    end)
    assert.equal("value", ran)
    assert.is_nil(read("log"))
  end)

  it("hears of a signal that somebody else has sent", function()
    local f = fork_map.spawn(function()
      fork_map.on_cancel(function() touch("log") end)
      touch("ready")
      while true do end
    end)
    wait_for("ready")
    os.execute("kill -TERM " .. f:pid())
    assert.is_true(f:wait(30))
    local ok, err = f:poll()
    assert.is_false(ok)
    assert.same({ "exit", 143 }, { err.kind, err.exit_code })
    assert.equal("x", read("log"))
  end)

  it("has functions of its own, which are not its children's", function()
    local f = cancel(function()
      fork_map.on_cancel(function() touch("log", "outer ") end)
      fork_map(function()
        fork_map.on_cancel(function() touch("inner", "inner ") end)
        touch("ready")
        while true do end
      end)
    end)
    assert.equal("cancelled", f:status())
    assert.equal("outer ", read("log"))
  end)

  it("is asked to in a map whose deadline has come", function()
    local err = process.failure(fork_map.map, 2, function(i)
      fork_map.on_cancel(function() touch("log" .. i) end)
      while true do end
    end, { workers = 2, deadline = 0.5, grace = 20 })
    assert.equal("timeout", err.kind)
    assert.equal("xx", (read("log1") or "") .. (read("log2") or ""))
  end)

  it("is asked to by its nursery", function()
    fork_map.nursery(function(n)
      n:spawn(function()
        fork_map.on_cancel(function() touch("log") end)
        touch("ready")
        while true do end
      end)
      wait_for("ready")
      n:cancel()
    end, { grace = 20 })
    assert.equal("x", read("log"))
  end)
end)

describe("fork_map.on_cancel", function()
  it("is refused outside of a child, and without a function", function()
    local function message(value)
      local ok, text = pcall(function() fork_map.on_cancel(value) end)
      assert.is_false(ok)
      return text
    end
    assert.matches("cancel_spec.lua:%d+: fork_map.on_cancel: not in a child", message(print))
    assert.matches("cancel_spec.lua:%d+: fork_map.on_cancel: a function is expected, not a number",
      message(3))
  end)
end)
