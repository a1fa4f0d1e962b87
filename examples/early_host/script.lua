-- SPDX-License-Identifier: MIT
-- What the host runs beside its threads; its argument is how many they are.
-- luacheck: globals host offset
local fork_map = require("fork_map")

print("threads", (...))

-- A direct fork would copy this process, with a lock that another thread holds.
fork_map.engine():configure { on_threads = "refuse" }
local ok, err = pcall(fork_map, host.count)
print("direct", ok, err.kind)

-- A template is a copy of this process as it was before the threads.  What it is told
-- now it knows too; its calls take the host's lock, each in a process of its own.
local template = fork_map.template():eval("offset = 40")
local futures = {}
for i = 1, 3 do
  futures[i] = template:spawn(function(n)
    return offset + n + host.count()
  end, i)
end
print("template", table.concat(fork_map.all(futures):await(), " "))
