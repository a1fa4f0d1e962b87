-- SPDX-License-Identifier: MIT
-- Examples that are run on the build under test; the others are run as they are
-- delivered, by .ci/run and package_spec.lua.

local core = require "fork_map.core"
local project = require("support.project")
local q, run = project.quote, project.run

-- What an example prints.
local function output_of(name)
  return run(("LUA_PATH=%s LUA_CPATH=%s timeout 60 env %s %s"):format(
    q(package.path), q(package.cpath), project.lua, q("examples/" .. name)))
end

local tag = core.has_templates and "" or " #not_portable"

describe("the example" .. tag, function()
  it("rpc.lua calls a worker over its channel, with events in order", function()
    assert.equal(table.concat({
      "one after the other\t1/3 2/3 3/3 1/2 2/2\t3 2",
      "an error\tthis cannot be done",
      "all at once\t1 2 3",
      "a crash\tthe worker is gone: EOF",
      "",
    }, "\n"), output_of("rpc.lua"))
  end)

  local has_sockets = pcall(require, "socket")

  ;(has_sockets and it or pending)("prefork_echo.lua is served by all its workers", function()
    assert.equal(table.concat({
      "10 workers have answered",
      "one was killed, and 10 have answered",
      "the dead one was not among them",
      "",
    }, "\n"), output_of("prefork_echo.lua"))
  end)
end)
