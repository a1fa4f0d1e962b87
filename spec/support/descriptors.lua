-- SPDX-License-Identifier: MIT
-- Open descriptors of this process.

local sys = require "specs_core"

local M = {}

---How many there are, of objects that are still in use.
function M.count()
  collectgarbage()
  collectgarbage()
  local n = 0
  for _ in pairs(sys.fds()) do
    n = n + 1
  end
  return n
end

return M
