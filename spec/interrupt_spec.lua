-- SPDX-License-Identifier: MIT
local fork_map = require "fork_map"
local process = require "support.process"
local project = require "support.project"

-- What every script begins with.  note() tells of a process that runs.
local PREAMBLE = [[
  package.path, package.cpath = %q, %q
  local core = require "fork_map.core"
  local fork_map = require "fork_map"
  local sys = require "specs_core"
  local function note()
    local file <close> = io.open(%q, "a")
    file:write(sys.getpid(), "\n")
  end
  local function sleep() note() sys.sleep(60) end
  local function spin() note() while true do end end
]]

describe("Ctrl-C in a script that lua5.4 runs", function()
  local directory, notes

  before_each(function()
    directory = project.make_directory()
    notes = directory .. "/notes"
  end)
  after_each(function()
    project.remove(directory)
  end)

  local function noted()
    local pids = {}
    for pid in (process.read_file(notes) or ""):gmatch("(%d+)\n") do
      pids[#pids + 1] = math.tointeger(tonumber(pid))
    end
    return pids
  end

  -- Run `program` on a terminal of its own and press Ctrl-C when `n` processes
  -- run.  Returns what it printed and how long it took to end.
  local function press(n, program)
    local name, log = directory .. "/script.lua", directory .. "/log"
    project.write(name, PREAMBLE:format(package.path, package.cpath, notes) .. program)
    -- The sanitizer's runtime is for lua5.4 alone: project.lua brings it in.
    local terminal = "unset LD_PRELOAD\nexec script -qec %s /dev/null >%s 2>&1"
    local keys = assert(io.popen(terminal:format(
      project.quote(project.lua .. " " .. name), project.quote(log)), "w"))
    process.eventually(function() return #noted() == n end, "the processes of " .. program)
    local took = process.timed(function()
      keys:write("\3")
      keys:close()
    end)
    for _, pid in ipairs(noted()) do
      process.eventually(function() return process.is_gone(pid) end, "the end of a process")
    end
    return process.read_file(log), took
  end

  it("ends a call that sleeps, and the script", function()
    local text, took = press(1, "fork_map(sleep) print 'not reached'")
    assert.matches("interrupted!", text)
    assert.not_matches("not reached", text)
    assert.is_true(took < 5)
  end)

  it("ends a call that computes, and what it has started", function()
    local text, took = press(2, [[
      fork_map(function()
        if sys.fork_once() == 0 then
          sleep()
        end
        spin()
      end)
    ]])
    assert.matches("interrupted!", text)
    assert.is_true(took < 5)
  end)

  it("ends calls below calls, and all that run beside", function()
    local text, took = press(4, [[
      for _ = 1, 3 do
        future = core.future(fork_map.engine().core, core.options {})
        core.start(future, sleep)
        list = { future, list }
      end
      fork_map(function() return fork_map(sleep) end)
    ]])
    assert.matches("interrupted!", text)
    assert.is_true(took < 5)
  end)

  it("ends a map, its workers and what its items have started", function()
    local text, took = press(2, [[
      fork_map.map(8, function(i)
        if i == 2 then
          fork_map(sleep)
        end
        spin()
      end, { workers = 2, chunk = 1, on_error = "collect" })
      print "not reached"
    ]])
    assert.matches("interrupted!", text)
    assert.not_matches("not reached", text)
    assert.is_true(took < 5)
  end)

  it("ends a loop over results, and a map without workers", function()
    local text = press(2, [[
      print(pcall(function()
        for _ in fork_map.imap(8, sleep, { workers = 2, chunk = 1 }) do end
      end))
      print(sys.wait_any())
    ]])
    assert.matches("false%s+.*interrupted!%s+nil%s+ECHILD", text)
    text = press(3, [[
      print(pcall(fork_map.map, 8, spin, { workers = 0, timeout = 60 }))
    ]])
    assert.matches("false%s+.*interrupted!", text)
  end)

  it("is an error that a script can go on after, with no child left", function()
    local text = press(1, [[
      local ok, message = pcall(fork_map, sleep)
      print(ok, message, sys.wait_any())
      print(fork_map(function() return "goes on" end))
    ]])
    assert.matches("false%s+.*interrupted!%s+nil%s+ECHILD", text)
    assert.matches("goes on", text)
  end)
end)

describe("a hook that raises, at any moment of a map,", function()
  process.guard(before_each, after_each, 4)

  local function echo(i)
    return { i }
  end

  -- The hook raises at its k-th event.
  local function run(engine, k)
    local left = k
    debug.sethook(function()
      left = left - 1
      if left == 0 then
        debug.sethook()
        error("interrupted!", 0)
      end
    end, "crl", 1)
    for _ in engine:imap(8, echo, { workers = 2, chunk = 1 }) do end
    debug.sethook()
  end

  it("ends it with that error #slow", function()
    local engine <close> = fork_map.new {}
    local n_raised, k = 0, 1
    repeat
      k = k + 2
      local ok, err = pcall(run, engine, k)
      debug.sethook()
      assert(ok or tostring(err):find("interrupted!", 1, true), err)
      n_raised = n_raised + (ok and 0 or 1)
    until ok or k > 4000
    assert(n_raised > 100, n_raised)
    -- One that struck between the making of the map and the loop that closes it has left
    -- it to the collector.
    collectgarbage()
    collectgarbage()
    process.eventually(function()
      engine:step(0)
      return #process.children() == 0
    end, "the end of all workers")
  end)
end)
