-- SPDX-License-Identifier: MIT
-- fork_map.Error: the class of what a failed call raises.

local core = require "fork_map.core"

---Why a call in a child did not give a value.  Fields that are not known are
---nil.
---@class fork_map.Error
---@field kind fork_map.Kind
---@field message string one sentence; for kind "error" the text that was raised
---@field value any the raised value, when it could cross
---@field traceback string? of the child
---@field signal integer? number of the signal that ended the child
---@field signame string? its name, such as "SIGSEGV"
---@field exit_code integer?
---@field limit string? name of the limit that was exceeded
---@field path string? of the value that could not be encoded: "result.a.b[3]"
---@field index integer? of the item, when it failed
---@field partial table? of a map that raises: the results so far
---@field attempt integer? 1 for the first
---@field pid integer? of the child
---@field name string? option `name` of the call
---@field usage fork_map.Usage?
---@field stdout string? with output = "capture"
---@field stderr string? with output = "capture"
---@field dropped integer? bytes of output that were let go
---@field last fork_map.Last? where the child was last seen
local Error = core.Error

---@alias fork_map.Kind
---| "error" # the function raised
---| "exit" # the process ended with a code other than 0
---| "signal" # the process was ended by a signal
---| "no_result" # it ended with code 0 and no result
---| "timeout" # we ended it: option `timeout`
---| "cancelled" # we ended it: cancelled
---| "limit" # we ended it: one of `limits`
---| "encode" # a result that cannot cross
---| "protocol" # bytes that are not ours
---| "spawn" # no process could be made
---| "closed" # the engine is closed, or belongs to a parent process

---Times in seconds, sizes in bytes.
---@class fork_map.Usage
---@field wall number
---@field user number
---@field sys number
---@field max_rss integer

---@class fork_map.Last
---@field line string? "source:line" that was seen last
---@field elapsed number seconds from the start of the run
---@field max_rss integer

Error.__name = "fork_map.Error"
Error.__index = Error

-- Control characters that could steer a terminal; tab and newline stay.  The
-- second pattern finds those from U+0080 to U+009F in UTF-8.
local function escape(text)
  local function hex(c)
    return (c:gsub(".", function(byte)
      return ("\\x%02X"):format(byte:byte())
    end))
  end
  return (text:gsub("[\0-\8\11-\31\127]", hex):gsub("\xC2[\x80-\x9F]", hex))
end

---The message, with the call's name if it has one, safe to print.
---@return string
function Error:__tostring()
  local message = tostring(self.message)
  if self.name then
    message = ("%s: %s"):format(self.name, message)
  end
  return escape(message)
end

return Error
