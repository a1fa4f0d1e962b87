-- SPDX-License-Identifier: MIT
-- Lua hosts of maps that are themselves killed by spec/kill/kill_each.c:
--
--   lua5.4 spec/kill/kill_map_host.lua list|item|source
--
-- An item whose host is gone never ends, and beside it lives a process that never
-- ends at all: whatever is not killed stays.  Ends with 0 when all values came and
-- no child is left.

local fork_map = require "fork_map"
local sys = require "specs_core"

local host = sys.getpid()
local has_company = false

-- In each worker, or in each item that has a process of its own, once.
local function keep_company()
  if not has_company then
    has_company = true
    assert(sys.fork_and_hold() > 0)
  end
end

local function work()
  keep_company()
  sys.sleep(0.002)
  while not sys.kill(host, 0) do
    sys.sleep(1)
  end
end

local function work_or_die(item, index)
  work()
  if index == 3 and fork_map.worker().attempt == 1 then
    sys.kill(sys.getpid(), 9)
  end
  return item
end

local hosts = {}

-- Workers that are replaced after two items, and one that dies in its item.
function hosts.list()
  local results = fork_map.map({ 10, 20, 30, 40, 50, 60 }, work_or_die,
    { workers = 2, chunk = 1, max_tasks = 2, retries = 1 })
  assert(results.n == 6 and table.concat(results, " ") == "10 20 30 40 50 60", "values")
end

-- Children of workers, with children of their own.
function hosts.item()
  local results = fork_map.map({ 10, 20, 30, 40 }, work_or_die,
    { workers = 2, isolate = "item", retries = 1 })
  assert(results.n == 4 and table.concat(results, " ") == "10 20 30 40", "values")
end

-- An iterator without end, of items small and larger than what a tray holds, and
-- a loop that is left while workers work.
function hosts.source()
  local n, last = 0, 0
  local function next_item()
    n = n + 1
    return n % 4 == 2 and ("x"):rep(100000) or n
  end
  local opts = { workers = 2, chunk = 1, retries = 1 }
  for index, value in fork_map.imap(next_item, work_or_die, opts) do
    assert(index == last + 1 and (value == index or #value == 100000), "values")
    last = index
    if last == 7 then
      break
    end
  end
  assert(last == 7 and n > last, "loop")
end

os.rename("", "")
hosts[arg[1]]()
assert(select(2, sys.wait_any()) == "ECHILD", "a child is left")
