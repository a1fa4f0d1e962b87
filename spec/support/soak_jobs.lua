-- SPDX-License-Identifier: MIT
-- Jobs with known answers, for spec/soak.lua.
--
-- `run(id, ...)` is what the child does, `check(id, ok, ...)` tells whether
-- that is what comes of it, `opts` are its options.  A job that the nemesis may
-- disturb says by which signals: "kill" or "stop"; "cancel" asks for a cancel.

local sys = require "specs_core"
local fork_map = require "fork_map"

local M = {}

-- A check for failures of one kind; `fields` tells what else they hold.
local function fails(kind, fields)
  return function(id, ok, err)
    if ok or getmetatable(err) ~= fork_map.Error or err.kind ~= kind then
      return false
    end
    return fields == nil or fields(id, err)
  end
end

local function values(id, ok, a, b, c)
  return ok and a == id * 7 and b == nil and c == "v" .. id
end

local function run_values(id)
  return id * 7, nil, "v" .. id
end

-- Any bytes that depend on the job.
local function text_of(id, n)
  return (("%d:"):format(id)):rep(n)
end

local function sleep_on()
  sys.sleep(20)
end

-- Lines that came, by job; a job's are taken away when it is checked.
local lines = {}

local function take_line(line, stream)
  local id = tonumber(line:match("^line %d+ of (%d+)$"))
  if id and stream == "stdout" then
    lines[id] = (lines[id] or 0) + 1
  end
end

---Forget the lines of a job that had no chance to be checked.
function M.forget(id)
  lines[id] = nil
end

M.kinds = {
  { name = "values", weight = 40, run = run_values, check = values },
  {
    name = "table",
    weight = 20,
    run = function(id)
      return { id = id, list = { id, id + 0.5, "x" }, deep = { { { id } } } }
    end,
    check = function(id, ok, t)
      return ok and t.id == id and #t.list == 3 and t.list[2] == id + 0.5 and t.deep[1][1][1] == id
    end,
  },
  {
    name = "binary",
    weight = 5,
    opts = { codec = "lua" },
    run = function(id)
      local t = { [id] = id }
      t.self = t
      return t
    end,
    check = function(id, ok, t)
      return ok and t[id] == id and t.self == t
    end,
  },
  {
    name = "big result",
    weight = 1,
    run = function(id)
      return text_of(id, 300000)
    end,
    check = function(id, ok, text)
      return ok and text == text_of(id, 300000)
    end,
  },
  {
    name = "raised table",
    weight = 5,
    run = function(id)
      error { id = id }
    end,
    check = fails("error", function(id, err)
      return err.value.id == id
    end),
  },
  {
    name = "os.exit",
    weight = 5,
    run = function(id)
      os.exit(id % 255 + 1)
    end,
    check = fails("exit", function(id, err)
      return err.exit_code == id % 255 + 1
    end),
  },
  {
    name = "exit 0",
    weight = 3,
    run = function()
      sys.quick_exit(0)
    end,
    check = fails("no_result"),
  },
  {
    name = "crash",
    weight = 5,
    run = function(id)
      if id % 2 == 0 then
        sys.abort()
      end
      sys.segv()
    end,
    check = fails("signal", function(id, err)
      return err.signal == (id % 2 == 0 and 6 or 11)
    end),
  },
  {
    name = "retried crash",
    weight = 2,
    opts = { retries = 2 },
    run = function()
      sys.raise(9)
    end,
    check = fails("signal", function(_, err)
      return err.signal == 9 and err.attempt == 3
    end),
  },
  {
    name = "timeout",
    weight = 2,
    opts = { timeout = 0.02, grace = 0.05 },
    run = sleep_on,
    check = fails("timeout"),
  },
  {
    name = "timeout of a loop",
    weight = 1,
    opts = { timeout = 0.02, grace = 0.05 },
    run = function()
      while true do end
    end,
    check = fails("timeout"),
  },
  {
    name = "timeout without ears",
    weight = 1,
    opts = { timeout = 0.02, grace = 0.02 },
    run = function()
      sys.handle(15, "ignore")
      sleep_on()
    end,
    check = fails("timeout"),
  },
  {
    name = "timeout of a stopped one",
    weight = 1,
    opts = { timeout = 0.02, grace = 0.05 },
    run = function()
      sys.raise(19)
      sleep_on()
    end,
    check = fails("timeout"),
  },
  {
    name = "limit of the result",
    weight = 2,
    opts = { limits = { result = "4K" } },
    run = function(id)
      return text_of(id, 10000)
    end,
    check = fails("limit", function(_, err)
      return err.limit == "result"
    end),
  },
  {
    name = "limit of memory",
    weight = 2,
    opts = { limits = { memory = "2M" } },
    run = function(id)
      local texts = {}
      for i = 1, 1000 do
        texts[i] = text_of(id, 10000 + i)
      end
      return #texts
    end,
    check = fails("limit", function(_, err)
      return err.limit == "memory"
    end),
  },
  {
    name = "value that cannot cross",
    weight = 2,
    run = function()
      return { a = { print } }
    end,
    check = fails("encode", function(_, err)
      return err.path == "result.a[1]"
    end),
  },
  {
    name = "captured output",
    weight = 3,
    opts = { output = "capture" },
    run = function(id)
      io.stdout:write(text_of(id, id % 3000))
      io.stderr:write("err ", id)
      sys.quick_exit(0)
    end,
    -- What was not written yet when _exit() came is not there.
    check = fails("no_result", function(id, err)
      return text_of(id, id % 3000):sub(1, #err.stdout) == err.stdout and err.stderr == "err " .. id
    end),
  },
  {
    name = "output that fills its pipe",
    weight = 1,
    opts = { output = "capture" },
    run = function(id)
      io.stdout:write(text_of(id, 40000))
      error("after")
    end,
    check = fails("error", function(id, err)
      return err.stdout == text_of(id, 40000) and err.stderr == ""
    end),
  },
  {
    name = "lines",
    weight = 2,
    opts = { output = take_line },
    run = function(id)
      for i = 1, 20 do
        print(("line %d of %d"):format(i, id))
      end
      return run_values(id)
    end,
    check = function(id, ...)
      local n = lines[id]
      lines[id] = nil
      return n == 20 and values(id, ...)
    end,
  },
  {
    name = "grandchild",
    weight = 2,
    run = function(id)
      sys.fork_and_hold()
      return run_values(id)
    end,
    check = values,
  },
  {
    name = "call in a child",
    weight = 2,
    run = function(id)
      return fork_map(run_values, id)
    end,
    check = values,
  },
  {
    name = "liar",
    weight = 3,
    run = function(id)
      sys.scribble(id % 255 + 1)
      sys.quick_exit(0)
    end,
    check = fails("protocol"),
  },
  {
    name = "descriptors buried",
    weight = 3,
    opts = { keep_fds = {} },
    run = run_values,
    check = values,
  },
  {
    name = "victim of SIGKILL",
    weight = 10,
    disturb = "kill",
    run = function(id)
      sys.sleep(id % 5 * 0.001)
      return run_values(id)
    end,
    check = function(id, ok, ...)
      return values(id, ok, ...) or fails("signal", function(_, err)
        return err.signal == 9
      end)(id, ok, ...)
    end,
  },
  {
    name = "victim of SIGSTOP",
    weight = 6,
    disturb = "stop",
    run = function(id)
      sys.sleep(id % 5 * 0.001)
      return run_values(id)
    end,
    check = values,
  },
  {
    name = "cancelled",
    weight = 5,
    disturb = "cancel",
    opts = { grace = 0.05 },
    run = function(id)
      sys.sleep(id % 7 == 0 and 0 or 20)
      return run_values(id)
    end,
    check = function(id, ok, ...)
      return values(id, ok, ...) or fails("cancelled")(id, ok, ...)
    end,
  },
}

return M
