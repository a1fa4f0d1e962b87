-- SPDX-License-Identifier: MIT
-- A Lua host with a map whose second worker is killed by spec/kill/kill_each.c.
-- The two items wait for each other, so that both workers are needed.  Ends with
-- 0 when each was done once by two workers, with 10 when one was done again or
-- another worker was needed, with 1 when any value is missing or anything is left.

local fork_map = require "fork_map"
local sys = require "specs_core"

local name = os.tmpname()
local n_forks, n_attempts = 0, 0
fork_map.at_fork { parent = function() n_forks = n_forks + 1 end }

local function touch(path)
  assert(io.open(path, "w")):close()
end

local function exists(path)
  local file = io.open(path)
  return file ~= nil and file:close()
end

-- Renaming marks that the item is done.
local function meet(item)
  touch(name .. item)
  while not exists(name .. 3 - item) do
    sys.sleep(0.001)
  end
  os.rename("", "")
  return { item = item, attempt = fork_map.worker().attempt, text = ("x"):rep(1000 * item) }
end

local function is_right(value, item)
  return value.item == item and value.text == ("x"):rep(1000 * item)
end

local ok, err = pcall(function()
  local results = fork_map.map(2, meet, { workers = 2, chunk = 1, retries = 3 })
  assert(results.n == 2 and is_right(results[1], 1) and is_right(results[2], 2), "values")
  n_attempts = results[1].attempt + results[2].attempt
end)
for _, suffix in ipairs { "", "1", "2" } do
  os.remove(name .. suffix)
end
assert(ok, err)
assert(select(2, sys.wait_any()) == "ECHILD", "a child is left")
os.exit(n_forks == 2 and n_attempts == 2 and 0 or 10)
