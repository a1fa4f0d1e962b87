-- SPDX-License-Identifier: MIT
local core = require "fork_map.core"
local fork_map = require "fork_map"
local process = require "support.process"
local project = require "support.project"
local sys = require "specs_core"

local failure = process.failure

local function echo(item)
  return item
end

describe("options of maps", function()
  process.guard(before_each, after_each, 8)

  it("are those of the view, then those of the verb", function()
    local view = fork_map.with { workers = 1, on_error = "collect" }
    local results, errors = view:map(2, function(i) if i == 1 then error("no", 0) end return i end)
    assert.same({ nil, 2, n = 2 }, results)
    assert.equal("no", errors[1].message)
    assert.equal("no", failure(view.map, view, 2, error, { on_error = "raise" }).kind and "no")
    local inner = view:with { workers = 0 }
    assert.equal(sys.getpid(), inner:map(1, sys.getpid)[1])
    assert.not_equal(sys.getpid(), view:map(1, sys.getpid)[1])
    assert.equal(sys.getpid(), view:map(1, sys.getpid, { workers = 0 })[1])
  end)

  it("may be defaults of an engine", function()
    local engine <close> = fork_map.new { workers = 0, max_children = 2 }
    assert.equal(sys.getpid(), engine:map(1, sys.getpid)[1])
  end)

  it("share the processors by a number, a part or what is left", function()
    local function count(workers)
      local pids, n = {}, 0
      for _, pid in ipairs(fork_map.map(20, function() sys.sleep(0.005) return sys.getpid() end, {
        workers = workers, chunk = 1,
      })) do
        n = n + (pids[pid] and 0 or 1)
        pids[pid] = true
      end
      return n
    end
    local cpus = core.count_cpus()
    assert.equal(math.max(1, cpus // 2), count "50%")
    assert.equal(math.max(1, cpus - 1), count "auto-1")
    assert.equal(1, count "auto-999")
    assert.equal(cpus, count "auto")
  end)

  -- `call` is wrong in its first line.
  local function wrong(expected, call)
    local before = core.engine_stats(fork_map.engine().core).spawned
    local line = debug.getinfo(call, "S").linedefined + 1
    local ok, message = pcall(call)
    assert.is_false(ok)
    assert.equal("string", type(message))
    local position = ("spec/map_options_spec.lua:%d: "):format(line)
    assert.equal(position, message:match("^%.?/?(spec/.-:%d+: )"), message)
    assert.is_truthy(message:find(expected, 1, true), message)
    assert.equal(before, core.engine_stats(fork_map.engine().core).spawned)
  end

  local VERBS = { "map", "each", "imap", "imap_unordered", "find", "reduce" }
  local WRONG = {
    { "workers", -1 }, { "workers", 1.5 }, { "workers", "50" }, { "workers", "0%" },
    { "workers", 5000 }, { "workers", "auto+1" }, { "nested", "maybe" }, { "chunk", 0 },
    { "chunk", {} , true }, { "chunk", { min = 3, max = 2 } }, { "chunk", { least = 1 } },
    { "chunk", "big" }, { "isolate", "thread" }, { "on_error", "ignore" }, { "deadline", 0 },
    { "deadline", -1 }, { "deadline", "1" }, { "max_active", 0 }, { "init", 1 }, { "exit", {} },
    { "max_tasks", 0 }, { "max_rss", "1T" }, { "progress", "bar" }, { "journal", 1 },
    { "journal", "" }, { "on_event", "print" }, { "which", "last" }, { "timeout", 0 },
    { "retries", -1 }, { "retry_on", { "crash" } }, { "codec", "xml" }, { "seed", 1.5 },
    { "output", "file" }, { "keep_fds", { -1 } }, { "nice", 40 }, { "name", "" },
    { "limits", { memory = 0 }, false, "limits.memory" },
  }

  it("are named when they are wrong, at the line of the caller, before a fork", function()
    for _, case in ipairs(WRONG) do
      local name, value, is_right, shown = table.unpack(case)
      if not is_right then
        wrong(('option "%s"'):format(shown or name), function()
          local results = fork_map.map({ 1 }, echo, { [name] = value })
          return results
        end)
      end
    end
  end)

  it("are checked by every verb", function()
    local engine = fork_map.engine()
    for _, verb in ipairs(VERBS) do
      wrong('unknown option "worker" (did you mean "workers"?)', function()
        local result = fork_map[verb](3, echo, verb == "reduce" and echo or { worker = 1 }, 0,
          { worker = 1 })
        return result
      end)
      wrong("options must be a table", function()
        local result = engine[verb](engine, 3, echo, verb == "reduce" and echo or 1, 0, 1)
        return result
      end)
      wrong("a function is expected, not a table", function()
        local result = fork_map[verb](3, {}, verb == "reduce" and echo or nil)
        return result
      end)
      wrong("must be an integer, 0 or more", function()
        local result = fork_map[verb](-1, echo, verb == "reduce" and echo or nil)
        return result
      end)
      wrong('field "n" must be an integer', function()
        local result = fork_map[verb]({ n = "3" }, echo, verb == "reduce" and echo or nil)
        return result
      end)
    end
    wrong("combine must be a function, not a nil", function()
      local result = fork_map.reduce(3, echo)
      return result
    end)
    wrong("a list is expected, not a string", function()
      local result = fork_map.map("abc", echo)
      return result
    end)
  end)

  it("that need a process are refused without one", function()
    for name, value in pairs {
      limits = { memory = "1G" }, output = "discard", keep_fds = {}, nice = 1, isolate = "item",
    } do
      wrong(('option "%s" needs a process, and workers = 0 makes none'):format(name), function()
        local results = fork_map.map(3, echo, { workers = 0, [name] = value })
        return results
      end)
    end
    local view = fork_map.with { limits = { cpu = 5 }, nice = 0, output = "inherit" }
    assert.same({ 1, n = 1 }, view:map(1, echo, { workers = 0, limits = { cpu = math.huge } }))
  end)

  it("have a word for the wrong variable FORK_MAP_WORKERS, at the line of the caller", function()
    local program = [[
      package.path, package.cpath = %q, %q
      local fork_map = require "fork_map"
      local function pids() return fork_map.map(4, function() return fork_map.worker().id end) end
      local ok, result = pcall(function()
        local results = fork_map.map(4, function() return fork_map.worker().id end)
        return results
      end)
      print(ok and result[4] or result)
    ]]
    local name = os.tmpname()
    project.write(name, program:format(package.path, package.cpath))
    local function run(value)
      return project.run(("FORK_MAP_WORKERS=%s %s %s"):format(
        project.quote(value), project.lua, name))
    end
    for _, value in ipairs { "-1", "2x", "5000", "0x10", " ", "99999999999999999999" } do
      local output = run(value)
      assert.matches(":5: fork_map: the variable FORK_MAP_WORKERS must be", output, 1, true)
    end
    assert.equal("0\n", run "0")
    assert.equal("1\n", run "1")
    os.remove(name)
  end)
end)
