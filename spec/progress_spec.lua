-- SPDX-License-Identifier: MIT
local fork_map = require "fork_map"
local process = require "support.process"
local progress = require "fork_map.progress"
local project = require "support.project"
local sys = require "specs_core"

local function echo(item)
  return item
end

describe("option progress, a function,", function()
  process.guard(before_each, after_each, 8)

  for _, workers in ipairs { 0, 2 } do
    local view = fork_map.with { workers = workers }

    it(("is told of all at the end, with workers = %d"):format(workers), function()
      local told
      view:map(7, function(i)
        if i == 3 then
          error("no", 0)
        end
      end, { on_error = "collect", progress = function(state) told = state end })
      assert.same({ 7, 7, 1, workers }, { told.done, told.total, told.failed, told.active })
      assert.is_true(told.rate > 0)
      assert.equal(0, told.eta)
    end)

    it(("is told now and then, ever more, with workers = %d"):format(workers), function()
      local states = {}
      view:map(20, function() sys.sleep(0.03) end, {
        chunk = 1, progress = function(state) states[#states + 1] = state end,
      })
      assert.is_true(#states >= 3 and #states <= 20, #states)
      for k = 2, #states do
        assert.is_true(states[k].done > states[k - 1].done)
        assert.equal(20, states[k].total)
      end
      assert.is_true(states[2].eta > 0 and states[2].eta < 5)
      assert.equal(20, states[#states].done)
    end)

    it(("is told by every verb, with workers = %d"):format(workers), function()
      for _, verb in ipairs { "map", "each", "reduce", "find" } do
        local told = 0
        local opts = { progress = function(state) told = state.done end }
        if verb == "reduce" then
          view:reduce(5, function(acc, i) return acc + i end, math.max, 0, opts)
        else
          view[verb](view, 5, function() return nil end, opts)
        end
        assert.equal(5, told, verb)
      end
    end)
  end

  it("is not told for nothing", function()
    fork_map.map({}, echo, { progress = function() error("told") end })
  end)
end)

describe("the line of a progress bar", function()
  local function line(done, total, failed, rate, eta, name)
    return progress.format({
      done = done, total = total, failed = failed, rate = rate, eta = eta, active = 1,
    }, name)
  end

  it("shows what has ended of how many, the rate, the time left and failures", function()
    assert.equal("[############------------]  5/10  2.0/s  ETA 3s", line(5, 10, 0, 2, 2.5))
    assert.equal("[########################]  10/10  1.5k/s  2 failed", line(10, 10, 2, 1500, 0))
    assert.equal("[########################]  0/0  0.0/s", line(0, 0, 0, 0))
    assert.equal("7  12/s", line(7, nil, 0, 12))
  end)

  it("has units for rates and times of any size", function()
    assert.matches("3.0M/s  ETA 1m01s", line(1, 2, 0, 3e6, 61), 1, true)
    assert.matches("ETA 1h01m", line(1, 2, 0, 1, 3661), 1, true)
    assert.matches("ETA 1m02s", line(1, 2, 0, 1, 61.3), 1, true)
    assert.matches("ETA 1h00m", line(1, 2, 0, 1, 3599.5), 1, true)
    assert.matches("ETA 3d02h", line(1, 2, 0, 1, 74 * 3600.0), 1, true)
    assert.matches("ETA 999d00h", line(1, 2, 0, 1e-300, 1e300), 1, true)
    assert.matches("0.1/s", line(1, 2, 0, 0.1, 9))
  end)

  it("shows the name without what could steer a terminal", function()
    assert.equal("a?[31mb  7  1.0/s", line(7, nil, 0, 1, nil, "a\27[31mb"))
    assert.equal("a?b?c  7  1.0/s", line(7, nil, 0, 1, nil, "a\nb\rc"))
    assert.equal("a?m  7  1.0/s", line(7, nil, 0, 1, nil, "a\xC2\x9Bm"))
    assert.equal(("x"):rep(28) .. "...  7  1.0/s", line(7, nil, 0, 1, nil,
      ("x"):rep(28) .. "ä" .. ("y"):rep(50)))
  end)
end)

describe("a progress bar", function()
  local directory

  setup(function()
    directory = project.make_directory()
  end)
  teardown(function()
    project.remove(directory)
  end)

  local PREAMBLE = [[
    package.path, package.cpath = %q, %q
    local fork_map = require "fork_map"
    local sys = require "specs_core"
  ]]

  local function write_script(program)
    local name = directory .. "/script.lua"
    project.write(name, PREAMBLE:format(package.path, package.cpath) .. program)
    return name
  end

  -- What `program` shows on a terminal of its own.
  local function show(program)
    local name, log = write_script(program), directory .. "/log"
    local terminal = "unset LD_PRELOAD\nexec script -qec %s /dev/null </dev/null >%s 2>&1"
    os.execute(terminal:format(project.quote(project.lua .. " " .. name), project.quote(log)))
    return process.read_file(log)
  end

  local SLOW = [[
    fork_map.map(30, function(i)
      sys.sleep(0.02)
      if i == 4 then error("no", 0) end
    end, { progress = true, workers = 2, chunk = 1, on_error = "collect", name = "the work" })
    print "after"
  ]]

  it("is drawn on a terminal, over itself, and ended by a newline", function()
    local text = show(SLOW)
    local lines = {}
    for line in text:gmatch("\r(the work[^\r]*)\27%[K") do
      lines[#lines + 1] = line
    end
    assert.is_true(#lines >= 3, text)
    assert.matches("^the work  %[#+%-+%]  %d+/30  %d+%.?%d*/s  ETA %ds", lines[2])
    local full = ("#"):rep(24)
    assert.matches("^the work  %[" .. full .. "%]  30/30  %d+/s  1 failed$", lines[#lines])
    assert.matches("1 failed\27%[K\r?\nafter", text)
  end)

  it("is ended by a newline when the map raises, and when a loop is left", function()
    local text = show [[
      local ok, err = pcall(fork_map.map, 30, function(i)
        sys.sleep(0.02)
        if i == 20 then error("fails", 0) end
      end, { progress = true, workers = 2, chunk = 1 })
      print(ok, err)
      for i in fork_map.imap(100, function() sys.sleep(0.02) end, {
        progress = true, workers = 2, chunk = 1,
      }) do
        if i == 20 then break end
      end
      print "after"
    ]]
    assert.matches("/s[^\n]*\27%[K\r?\nfalse\tfails\r?\n", text)
    assert.matches("/s[^\n]*\27%[K\r?\nafter\r?\n$", text)
  end)

  it("is drawn without workers too", function()
    local text = show [[
      fork_map.map(10, function() sys.sleep(0.03) end, { progress = true, workers = 0 })
      print "after"
    ]]
    assert.matches("10/10[^\n]*\27%[K\r?\nafter", text)
  end)

  it("is silent where there is no terminal", function()
    assert.equal("after\n", project.run(project.lua .. " " .. write_script(SLOW)))
  end)
end)
