-- SPDX-License-Identifier: MIT
-- Both ends of a connection to a remote template, for its specs.

local channels = require "fork_map.channel"
local server = require "fork_map.remote_server"
local sys = require "specs_core"

local M = {}

---Two pipes, crosswise: what one side reads and writes, and what the other does.
function M.cross()
  local there_r, there_w = sys.pipe()
  local back_r, back_w = sys.pipe()
  return { back_r, there_w }, { there_r, back_w }
end

function M.close_all(fds)
  for _, fd in ipairs(fds) do
    sys.close(fd)
  end
end

---Serve over these.
function M.serve(read_fd, write_fd)
  return server.serve(assert(channels.adopt(read_fd, write_fd)))
end

return M
