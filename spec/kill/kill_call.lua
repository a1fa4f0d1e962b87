-- SPDX-License-Identifier: MIT
-- A Lua host whose second child is killed by spec/kill/kill_each.c.  Ends with
-- 0 when it got all values of the call, with 10 when the call failed as killed,
-- with 1 when anything else came or anything is left.

local descriptors = require "support.descriptors"
local fork_map = require "fork_map"
local sys = require "specs_core"

local list = {}
for i = 1, 1000 do
  list[i] = i + 0.5
end

-- Renaming marks that the function is done.
local function job(...)
  local sum = 0
  for i = 1, #list do
    sum = sum + list[i]
  end
  local results = table.pack(sum, { list = list, nested = { text = "x" } }, nil, ...)
  os.rename("", "")
  return table.unpack(results, 1, results.n)
end

local function is_whole(results)
  if results.n ~= 4 or results[1] ~= 501000.0 or results[3] ~= nil or results[4] ~= "last" then
    return false
  end
  for i = 1, #list do
    if results[2].list[i] ~= list[i] then
      return false
    end
  end
  return #results[2].list == #list and results[2].nested.text == "x"
end

local function is_killed(err)
  return getmetatable(err) == fork_map.Error and err.kind == "signal" and err.signal == 9
end

-- Plain calls before each count: the engine keeps an idle channel, which a
-- killed child takes with it.
assert(is_whole(table.pack(fork_map(job, "last"))))
local before = descriptors.count()
local results = table.pack(pcall(fork_map, job, "last"))
local code = results[1] and 0 or 10
if results[1] then
  assert(is_whole(table.pack(table.unpack(results, 2, results.n))))
else
  assert(results.n == 2 and is_killed(results[2]), tostring(results[2]))
end
assert(select(2, sys.wait_any()) == "ECHILD", "a child is left")
assert(is_whole(table.pack(fork_map(job, "last"))), "the next call")
assert(descriptors.count() == before, "descriptors")
os.exit(code)
