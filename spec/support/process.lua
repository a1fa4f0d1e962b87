-- SPDX-License-Identifier: MIT
-- Processes as specs see them, and the guard that every spec of calls stands
-- under: what a test opened, started or changed is gone when it ends.

local assert = require "luassert"
local core = require "fork_map.core"
local fork_map = require "fork_map"
local sys = require "specs_core"

local M = {}

---The text of a file, or nil.
function M.read_file(path)
  local file = io.open(path, "rb")
  if not file then
    return nil
  end
  local text = file:read("a")
  file:close()
  return text
end

---Process ids of the children of this process, zombies included.
function M.children()
  local pids = {}
  for pid in (M.read_file("/proc/thread-self/children") or ""):gmatch("%d+") do
    pids[#pids + 1] = math.tointeger(tonumber(pid))
  end
  return pids
end

---The state letter of a process ("R", "S", "T", "Z", …), or nil when it is gone.
function M.state(pid)
  local stat = M.read_file(("/proc/%d/stat"):format(pid))
  return stat and stat:match("^.*%) (%a)")
end

---Wait for `condition` to hold: for things that the kernel does soon but not at
---once.  Fails after ten seconds.
function M.eventually(condition, what)
  local deadline = sys.now() + 10
  while not condition() do
    if sys.now() > deadline then
      error("not within ten seconds: " .. what, 2)
    end
    sys.sleep(0.001)
  end
end

---Gone, or a zombie that its new parent has not taken yet.
function M.is_gone(pid)
  local state = M.state(pid)
  return state == nil or state == "Z"
end

---The time that `fn` takes, and what it returns.
function M.timed(fn, ...)
  local began = sys.now()
  local results = table.pack(pcall(fn, ...))
  return sys.now() - began, table.unpack(results, 1, results.n)
end

---The error that a call fails with.
---@return fork_map.Error
function M.failure(call, ...)
  local ok, err = pcall(call, ...)
  assert(not ok, "the call did not fail")
  if getmetatable(err) ~= fork_map.Error then
    error("not a fork_map.Error: " .. tostring(err), 2)
  end
  return err
end

---Start a call without waiting for it.
---@return fork_map.core.Future
function M.spawn(engine, opts, fn, ...)
  local future = core.future(engine.core, core.options(opts))
  core.start(future, fn, ...)
  return future
end

---A kilobyte-exact field of smaps_rollup, such as "Private_Dirty", in bytes.
function M.smaps(field)
  local text = M.read_file("/proc/self/smaps_rollup")
  return tonumber(text:match(field .. ":%s+(%d+) kB")) * 1024
end

-- What must be the same after a test as before.  The engine keeps the
-- descriptors of idle channels, up to eight and no more than it once needed, and
-- a killed child takes its own with it: as many children at once as a test has
-- bring them back.
local function run_at_once(n_children)
  local futures = {}
  for i = 1, n_children do
    futures[i] = core.future(fork_map.engine().core, core.options {})
    core.start(futures[i], function() end)
  end
  for _, future in ipairs(futures) do
    while not core.wait(future) do end
  end
end

local function take_stock(n_children)
  run_at_once(n_children)
  collectgarbage()
  local handlers = {}
  for signal = 1, 31 do
    handlers[signal] = sys.handler(signal)
  end
  local fds = sys.fds()
  for fd, target in pairs(fds) do
    fds[fd] = target:gsub("%[%d+%]", "")
  end
  return { fds = fds, handlers = handlers, blocked = sys.blocked() }
end

---Check after every test of a block that nothing of it is left.  Give it how many
---children tests may have at once, when those are more than one.
function M.guard(before_each, after_each, n_children)
  local before
  before_each(function()
    before = take_stock(n_children or 1)
  end)
  after_each(function()
    local after = take_stock(n_children or 1)
    assert.same({}, M.children())
    assert.same({ nil, "ECHILD" }, { sys.wait_any() })
    local n_before, n_after = 0, 0
    for _ in pairs(before.fds) do n_before = n_before + 1 end
    for _ in pairs(after.fds) do n_after = n_after + 1 end
    if n_before ~= n_after then
      assert.same(before.fds, after.fds)
    end
    assert.same(before.handlers, after.handlers)
    assert.same(before.blocked, after.blocked)
  end)
end

return M
