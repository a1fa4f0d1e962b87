-- SPDX-License-Identifier: MIT
-- A short run of spec/soak.lua, which says what it does.

local project = require "support.project"

-- A sanitizer or one byte at a time makes everything slower.
local JOBS, SECONDS = 3000, 12

describe("calls on several engines under a nemesis #slow", function()
  it("each have their one outcome and leave nothing behind", function()
    local output = project.run(("env LUA_PATH=%s LUA_CPATH=%s "
      .. "GLIBC_TUNABLES=glibc.malloc.tcache_count=0 %s spec/soak.lua %d %d"):format(
      project.quote(package.path), project.quote(package.cpath), project.lua, JOBS, SECONDS))
    assert.matches("soak: %d+ jobs, 0 wrong", output)
  end)
end)
