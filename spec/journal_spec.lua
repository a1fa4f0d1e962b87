-- SPDX-License-Identifier: MIT
local fork_map = require "fork_map"
local process = require "support.process"
local project = require "support.project"
local sys = require "specs_core"

-- What every script begins with.  note() tells which items are worked on.
local PREAMBLE = [[
  package.path, package.cpath = %q, %q
  local fork_map = require "fork_map"
  local sys = require "specs_core"
  local notes = assert(io.open(%q, "a"))
  notes:setvbuf("no")
  local function note(text) notes:write(text .. "\n") end
  local journal = %q
]]

describe("option journal", function()
  process.guard(before_each, after_each, 4)
  local directory, name, notes

  setup(function()
    directory = project.make_directory()
    name, notes = directory .. "/journal", directory .. "/notes"
  end)
  teardown(function()
    project.remove(directory)
  end)
  before_each(function()
    os.remove(name)
    os.remove(notes)
  end)

  local function note(text)
    local file <close> = assert(io.open(notes, "a"))
    file:write(text .. "\n")
  end

  -- What was worked on since the last time, sorted.
  local function take_notes()
    local lines = {}
    for line in (process.read_file(notes) or ""):gmatch("([^\n]*)\n") do
      lines[#lines + 1] = line
    end
    os.remove(notes)
    table.sort(lines)
    return lines
  end

  local function double(item)
    note(tostring(item))
    return item .. item
  end

  local function map(list, opts, fn)
    local all = { journal = name, workers = 2 }
    for key, value in pairs(opts or {}) do
      all[key] = value
    end
    return fork_map.map(list, fn or double, all)
  end

  for _, workers in ipairs { 0, 2 } do
    local with = ("with workers = %d"):format(workers)
    local opts = { workers = workers }

    it("has finished items skipped, wherever they are in the list, " .. with, function()
      assert.same({ "aa", "bb", n = 2 }, map({ "a", "b" }, opts))
      assert.same({ "a", "b" }, take_notes())
      assert.same({ "aa", "bb", n = 2 }, map({ "a", "b" }, opts))
      assert.same({}, take_notes())
      assert.same({ "bb", "cc", "aa", n = 3 }, map({ "b", "c", "a" }, opts))
      assert.same({ "c" }, take_notes())
      assert.same({ "xx", "aa", n = 2 }, map({ "x", "a" }, opts))
      assert.same({ "x" }, take_notes())
    end)

    it("keeps the numbers, seeds and errors of the list, " .. with, function()
      local function work(item, index)
        note(tostring(item))
        fork_map.emit(index)
        if item == "fails" then
          error("no", 0)
        end
        return { index, fork_map.worker().index, math.random(1 << 40) }
      end
      local function run(list, journal)
        local events = {}
        local results, errors = fork_map.map(list, work, {
          workers = workers, journal = journal, seed = 5, on_error = "collect", chunk = 1,
          on_event = function(value, index) events[index] = value end,
        })
        return results, errors, events
      end
      local expected = run({ "a", "b", "fails", "c" })
      run({ "x", "b" }, name)
      local results, errors, events = run({ "a", "b", "fails", "c" }, name)
      assert.same({ expected[1], expected[2], nil, expected[4], n = 4 }, results)
      assert.same({ "no", 3 }, { errors[3].message, errors[3].index })
      assert.same({ 1, nil, 3, 4 }, events)
      take_notes()
      run({ "a", "b", "fails", "c" }, name)
      assert.same({ "fails" }, take_notes())
    end)

    it("keeps what was finished before a failure, " .. with, function()
      local err = process.failure(map, { "a", "b", "c" }, {
        workers = workers, chunk = 1, max_tasks = 1,
      }, function(item)
        if item == "c" then
          error("no", 0)
        end
        return double(item)
      end)
      assert.equal(3, err.index)
      local done = take_notes()
      local results = map({ "a", "b", "c" }, opts)
      assert.same({ "aa", "bb", "cc", n = 3 }, results)
      assert.is_true(#take_notes() <= 3 - #done + 1)
    end)

    it("is kept by each() as well, " .. with, function()
      local all = { workers = workers, journal = name }
      assert.equal(2, (fork_map.each({ "a", "b" }, note, all)))
      assert.equal(3, (fork_map.each({ "a", "b", "c" }, note, all)))
      assert.same({ "a", "b", "c" }, take_notes())
    end)
  end

  it("carries items and values of every kind, and knows them again", function()
    local list = {
      1, 1.0, -0.0, "1", true, false, { 1, 2 }, { a = 1, b = { c = "d" } }, {}, "", math.huge,
      { { n = 1 } }, n = 14, [14] = "after a hole",
    }
    local function pass(item)
      note(math.type(item) or type(item))
      return { item }
    end
    local results = map(list, {}, pass)
    assert.equal(14, #take_notes())
    local again = map(list, {}, pass)
    assert.same({}, take_notes())
    require("support.values").assert_same(results, again)
    map({ 1.5, { 1, 2, 3 }, { a = 1, b = { c = "e" } }, "2" }, {}, pass)
    assert.equal(4, #take_notes())
  end)

  it("knows a table again whatever the order of its fields, in another process", function()
    local script = directory .. "/script.lua"
    project.write(script, PREAMBLE:format(package.path, package.cpath, notes, name) .. [==[
      local item = {}
      local names = { "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta" }
      if arg[1] == "back" then
        for i = 1, 100 do item["x" .. i] = i end
        for i = 1, 100 do item["x" .. i] = nil end
      end
      for i = 1, #names do
        local k = arg[1] == "back" and #names + 1 - i or i
        item[names[k]] = k
      end
      fork_map.map({ item }, function() note "run" end, { journal = journal })
    ]==])
    for _, way in ipairs { "forth", "back", "forth", "back" } do
      project.run(("%s %s %s"):format(project.lua, script, way))
    end
    assert.same({ "run" }, take_notes())
  end)

  it("has an item as often as it is in the list", function()
    map({ "a", "b", "a" })
    assert.same({ "a", "a", "b" }, take_notes())
    assert.same({ "aa", "aa", "bb", "aa", n = 4 }, map({ "a", "a", "b", "a" }))
    assert.same({ "a" }, take_notes())
  end)

  it("is not asked for a worker when all is known", function()
    map({ "a" })
    local results = map({ "a" }, { init = function() error("called") end })
    assert.same({ "aa", n = 1 }, results)
  end)

  it("counts what is known as done, and not in the rate", function()
    map({ "a", "b", "c" })
    local told
    map({ "a", "b", "c", "d" }, { progress = function(state) told = state end })
    assert.same({ 4, 4, 0 }, { told.done, told.total, told.failed })
    assert.is_true(told.rate < 1 / 0)
  end)

  it("stores values as the codec gave them", function()
    local codec = {
      encode = function(packed) return packed[1] end,
      decode = function(text) return { n = 1, { text = text } } end,
    }
    local first = map({ "a" }, { codec = codec })
    assert.same({ { text = "aa" }, n = 1 }, first)
    assert.same(first, map({ "a" }, { codec = codec }))
    assert.same({ "a" }, take_notes())
  end)

  it("survives a program that is killed in the middle", function()
    local script = directory .. "/script.lua"
    project.write(script, PREAMBLE:format(package.path, package.cpath, notes, name) .. [[
      local list = {}
      for i = 1, 200 do list[i] = "item " .. i end
      local results = fork_map.map(list, function(item)
        sys.sleep(0.002)
        note(item)
        return item:upper()
      end, { journal = journal, workers = 2, chunk = 1 })
      for i = 1, 200 do assert(results[i] == list[i]:upper()) end
      print "complete"
    ]])
    local runs = 0
    local output
    repeat
      runs = runs + 1
      local pipe <close> = assert(io.popen(("exec 2>&1; unset LD_PRELOAD; %s %s & echo $!; wait $!")
        :format(project.lua, script)))
      local pid = math.tointeger(tonumber(pipe:read("l")))
      if runs <= 4 then
        local before = #(process.read_file(name) or "")
        process.eventually(function()
          return #(process.read_file(name) or "") > before + 1500
        end, "records in the journal")
        sys.kill(pid, 9)
      end
      output = pipe:read("a")
    until output:find("complete") or runs > 10
    assert.equal(5, runs, output)
    local counts, twice = {}, 0
    for _, item in ipairs(take_notes()) do
      twice = twice + (counts[item] and 1 or 0)
      counts[item] = true
    end
    for i = 1, 200 do
      assert.is_true(counts["item " .. i])
    end
    -- Those that were in the middle, or whose results had not been taken yet.
    assert.is_true(twice < 80, twice)
  end)

  local function journal_of(list)
    os.remove(name)
    map(list)
    take_notes()
    return process.read_file(name)
  end

  it("goes on after a last record that was cut short anywhere", function()
    local first, whole = #journal_of { "a" }, journal_of { "a", "b\nc" }
    -- Records are in the order of ends.
    local known = whole:sub(1, first) == journal_of { "a" } and "a" or "b\nc"
    local start = known == "a" and first or #journal_of { "b\nc" }
    for len = start, #whole - 1 do
      project.write(name, whole:sub(1, len))
      assert.same({ "aa", "b\ncb\nc", "cc", n = 3 }, map({ "a", "b\nc", "c" }))
      local lines = take_notes()
      assert.equal(known == "a" and 3 or 2, #lines, len) -- one of them has a newline in it
      map({ "a", "b\nc", "c" })
      assert.same({}, take_notes())
    end
    for len = 0, 18 do
      project.write(name, whole:sub(1, len))
      map({ "a" })
      assert.same({ "a" }, take_notes())
      map({ "a" })
      assert.same({}, take_notes())
    end
  end)

  local function refused(expected, ...)
    local ok, message = pcall(function(...)
      local results = map(...)
      return results
    end, ...)
    assert.is_false(ok)
    assert.equal("string", type(message))
    assert.matches("^%.?/?spec/journal_spec.lua:%d+: fork_map: ", message)
    assert.is_truthy(message:find(expected, 1, true), message)
    assert.same({}, take_notes())
  end

  it("refuses a file that is none, and leaves it as it is", function()
    for _, text in ipairs { "hello\n", "\n", "fork_map journal 2\n", "fork_map journax" } do
      project.write(name, text)
      refused(name .. " is no journal", { "a" })
      assert.equal(text, process.read_file(name))
    end
  end)

  it("refuses one that is damaged in the middle, at any byte, and says where", function()
    local whole = journal_of { "a", "b", "c" }
    local n_refused = 0
    for at = 20, #whole do
      local text = whole:sub(1, at - 1) .. string.char(whole:byte(at) ~ 1) .. whole:sub(at + 1)
      project.write(name, text)
      local ok, message = pcall(map, { "a", "b", "c" })
      if not ok then
        assert.matches("is damaged at byte %d+", message)
        assert.equal(text, process.read_file(name))
        n_refused = n_refused + 1
      else
        -- The last newline looks like the beginning of another record then.
        assert.is_true(at == #whole, at)
      end
    end
    assert.is_true(n_refused >= #whole - 20)
  end)

  it("refuses what cannot be opened or written, with its name", function()
    refused("cannot open the journal /no/such/directory/j", { "a" },
      { journal = "/no/such/directory/j" })
    refused("cannot open the journal " .. directory, { "a" }, { journal = directory })
    refused("cannot open the journal /dev/full", { "a" }, { journal = "/dev/full" })
  end)

  it("refuses items that it cannot know again", function()
    refused("item 2 cannot be found in a journal: a function", { "a", print })
    refused("item 1 cannot be found in a journal: ", { { a = { io.stdout } } })
  end)

  it("is for map and each only", function()
    for _, verb in ipairs { "imap", "imap_unordered", "find", "reduce" } do
      local ok, message = pcall(function()
        local result = fork_map.with { journal = name }[verb](fork_map.with { journal = name }, 3,
          function() end, verb == "reduce" and math.max or nil)
        return result
      end)
      assert.is_false(ok)
      assert.matches(("fork_map.%s: option \"journal\" is for map and each"):format(verb), message)
    end
  end)
end)
