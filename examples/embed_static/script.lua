-- SPDX-License-Identifier: MIT
local fork_map = require("fork_map")

local limited = fork_map.with { timeout = 60, limits = { memory = "256M" } }
print("sum", limited(function(n)
  local sum = 0
  for i = 1, n do
    sum = sum + i
  end
  return sum
end, 1000))

local ok, err = pcall(fork_map, function()
  os.exit(3)
end)
print("exit", ok, err.kind, err.exit_code)
