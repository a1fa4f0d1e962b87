-- SPDX-License-Identifier: MIT
-- What the two halves of a remote template say to each other, over a channel.  Every
-- message is some values, the first of them its verb:
--
--   both, first   "fork_map", version of this talk, version of the module, process id
--   client        "require", module          "eval", kind, code, arguments
--                 "send_arg", arguments      "run", name, arguments
--                 "spawn", number, kind, code, options, index or false, arguments
--                 "cancel", number, seconds or false
--   server        "done", "failed", fields   of the commands of the first two lines
--                 "values", number, …        of a call, or
--                 "error", number, fields
--
-- Commands are answered in order.  Arguments are packed: the format of a codec, and a
-- string.  A server loads code that its client sends; a client takes everything that
-- comes back as data of a stranger.

local cells = require "fork_map.cell"
local core = require "fork_map.core"

local M = {
  NAME = "fork_map",
  VERSION = 1,
  -- Seconds that each waits for the first word of the other.
  PATIENCE = 10,
}

-- Memory of arguments, as that of the values of a channel.
local BUDGET = 8 * 256 * 1024 * 1024

-- ---------------------------------------------------------------- arguments

---@param ... any
---@return integer? format
---@return string|fork_map.Error data or what is wrong
function M.pack(...)
  local data, format, message = core.encode("auto", ...)
  if data then
    return format, data
  end
  local path = format:gsub("^result(%d*)", function(number)
    return "arg" .. (number == "" and "1" or number)
  end)
  local err = cells.new_error("encode", message)
  err.path = path
  return nil, err
end

---@return table? arguments packed
function M.unpack(format, data)
  if (format ~= 1 and format ~= 2) or type(data) ~= "string" then
    return nil
  end
  local values = table.pack(pcall(core.decode, format, data, BUDGET))
  if not values[1] then
    return nil
  end
  return table.pack(table.unpack(values, 2, values.n))
end

-- ------------------------------------------------------------------ options

-- Options of calls that are heeded there.
local HEEDED = {
  "timeout", "grace", "retries", "retry_on", "backoff", "limits", "seed", "nice", "name",
}

-- What a connection cannot carry, with what these are without being asked for.
local REFUSED = { codec = "auto", output = "inherit", keep_fds = "all", sandbox = false }

---The options of a call as they are sent.
---@param opts table checked; those of verbs and nurseries are not for the call
---@return table? call
---@return string? text what is wrong
function M.check_options(opts)
  for name, default in pairs(REFUSED) do
    if opts[name] and opts[name] ~= default then
      return nil, ('fork_map: option "%s" cannot be used with a template behind connect')
        :format(name)
    end
  end
  local call = {}
  for _, name in ipairs(HEEDED) do
    call[name] = opts[name] or nil
  end
  return call
end

-- ------------------------------------------------------------------- errors

local FIELDS = {
  message = "string", traceback = "string", signal = "number", signame = "string",
  exit_code = "number", limit = "string", path = "string", attempt = "number",
  pid = "number", name = "string", usage = "table", last = "table",
}

local KINDS = {
  error = true, exit = true, signal = true, no_result = true, timeout = true,
  cancelled = true, limit = true, encode = true, protocol = true, spawn = true,
  closed = true,
}

---The fields of an error that cross.
---@param err fork_map.Error
---@return table
function M.to_fields(err)
  local fields = { kind = err.kind }
  for name in pairs(FIELDS) do
    fields[name] = err[name]
  end
  if err.value ~= nil and core.encode("auto", err.value) then
    fields.value = err.value
  end
  return fields
end

---The error of fields that somebody has sent, or nil.
---@return fork_map.Error?
function M.to_error(fields)
  if type(fields) ~= "table" or not KINDS[fields.kind] or type(fields.message) ~= "string" then
    return nil
  end
  local err = cells.new_error(fields.kind, fields.message)
  for name, expected in pairs(FIELDS) do
    if type(fields[name]) == expected then
      err[name] = fields[name]
    end
  end
  err.value = fields.value
  return err
end

-- ---------------------------------------------------------------- first words

---What is wrong with the first message of the other side, or nil.
---@param values table packed
---@return string?
function M.find_stranger(values)
  if values[1] ~= M.NAME or math.type(values[2]) ~= "integer" then
    return "the other end is no template of fork_map"
  elseif values[2] ~= M.VERSION then
    return ("the other end speaks version %d of the protocol, this one %d")
      :format(values[2], M.VERSION)
  end
end

---A message of a text that a stranger has said, in quotes and short.
function M.quote(text)
  text = text:sub(1, 200):gsub("[%c\128-\255]", function(c)
    return c == "\n" and "\\n" or ("\\x%02X"):format(c:byte())
  end)
  return '"' .. text .. '"'
end

return M
