-- SPDX-License-Identifier: MIT
-- Microseconds that so many processes of /bin/true take under libuv, sixteen at
-- once, as an engine has them.

local floor = require "floor"
local uv = require "luv"

local left, n_started = tonumber(arg[1]), 0
local n = left

local function start()
  if n_started == n then
    return
  end
  n_started = n_started + 1
  local process
  process = assert(uv.spawn("/bin/true", {}, function()
    process:close()
    left = left - 1
    start()
  end))
end

local began = floor.now()
for _ = 1, 16 do
  start()
end
uv.run()
assert(left == 0)
print(floor.now() - began)
