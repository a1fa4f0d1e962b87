-- SPDX-License-Identifier: MIT
-- The connection to a remote template: from what users give as `connect` to a link.

local channels = require "fork_map.channel"
local core = require "fork_map.core"

local M = {}

-- A descriptor to take over: a number itself; of other things a copy, which is listed.
-- Nil and what is wrong.
local function own(value, copies)
  if math.type(value) == "integer" then
    return value >= 0 and value or nil, "Bad file descriptor"
  end
  local fd, text = channels.find_fd(value)
  if fd then
    fd, text = core.copy_fd(fd)
    copies[#copies + 1] = fd
  end
  return fd, text
end

-- The ends that connect() returned, or that were given in its place.
local function list_ends(first, second)
  if type(first) == "table" and first[1] ~= nil then
    return first[1], first[2]
  end
  return first, second
end

local function open_link(first, second)
  local a, b = list_ends(first, second)
  local copies = {}
  local read_fd, text = own(a, copies)
  local write_fd = read_fd
  if read_fd and b ~= nil then
    write_fd, text = own(b, copies)
  end
  local link
  if read_fd and write_fd then
    link, text = core.link(read_fd, write_fd)
  end
  if not link then
    for _, fd in ipairs(copies) do
      core.close_fd(fd)
    end
  end
  return link, text
end

local function call_connect(connect)
  if type(connect) ~= "function" then
    return connect
  end
  local ends = table.pack(pcall(connect))
  if not ends[1] then
    return nil, tostring(ends[2])
  end
  return table.unpack(ends, 2, ends.n)
end

---A link over what `connect` is or returns: a descriptor, a file or another thing with
---one, or a pair of them.  Numbers are taken over, of other things copies are.
---@param connect any
---@return fork_map.core.Link?
---@return any[]|string ends what it was given, to be kept while the link is open; or why not
function M.open(connect)
  local ends = table.pack(call_connect(connect))
  if ends[1] == nil then
    return nil, ends[2] and tostring(ends[2]) or "it gave nothing"
  end
  local link, text = open_link(ends[1], ends[2])
  return link, link and ends or tostring(text)
end

return M
