-- SPDX-License-Identifier: MIT
-- A journal: what items gave, kept in a file, so that a program that was ended
-- in the middle does not work on them again.
--
-- The file begins with MAGIC.  A record is a head of one line, "<item length>
-- <value length> <check of the bytes> <check of the head so far>\n", then the item's
-- bytes, the value's bytes in the binary codec, and "\n".  An item is known by its
-- content, wherever it stands in the list; equal items are known as often as they
-- have records.
--
-- What ends before its head says was cut short, by the end of the program that
-- wrote it: it is blanked out with newlines, which may stand between records.
-- Anything else that is no record was not written by this file, and is refused.

local core = require "fork_map.core"

local M = {}
M.__index = M

local MAGIC = "fork_map journal 1\n"

-- Longest head of a record.
local HEAD_MAX = 100

-- What is wrong with a journal is raised as one of these.
local Problem = { __name = "fork_map.journal.Problem" }

local function refuse(format, ...)
  error(setmetatable({ text = "fork_map: " .. format:format(...) }, Problem), 0)
end

---The text of a problem with a journal, if `err` is one.
---@return string?
function M.get_problem(err)
  return getmetatable(err) == Problem and err.text or nil
end

-- ---------------------------------------------------------------------- keys

local append_key

-- Tables that are equal have equal keys, in whatever order they hold their
-- fields.  One that was met before is its number.
local function append_table(out, value, seen)
  if seen[value] then
    out[#out + 1] = "=" .. seen[value] .. ";"
    return nil
  end
  seen.n = seen.n + 1
  seen[value] = seen.n
  local names, fields = {}, {}
  for name, field in next, value do
    local text, _, reason = core.encode("lua", name)
    if not text or type(name) == "table" then
      return text and "a table as a key" or reason
    end
    names[#names + 1], fields[text] = text, field
  end
  table.sort(names)
  out[#out + 1] = "{" .. #names .. ";"
  for _, name in ipairs(names) do
    out[#out + 1] = #name .. ":" .. name
    local problem = append_key(out, fields[name], seen)
    if problem then
      return problem
    end
  end
end

-- Returns what is wrong, if something is.
function append_key(out, value, seen)
  if type(value) == "table" then
    return append_table(out, value, seen)
  end
  local text, _, reason = core.encode("lua", value)
  if not text then
    return reason
  end
  out[#out + 1] = #text .. ":" .. text
end

local function key_of(index, item)
  local out = {}
  local problem = append_key(out, item, { n = 0 })
  if problem then
    refuse("item %d cannot be found in a journal: %s", index, problem)
  end
  return table.concat(out)
end

-- ---------------------------------------------------------------------- file

local function head_of(item_len, value_len, check)
  local head = ("%d %d %016x "):format(item_len, value_len, check)
  return ("%s%016x\n"):format(head, core.checksum(head))
end

-- The record that begins here: item and value, or nil at the end; or false, and
-- how long the head is of a record that was cut short, nil if it is none.
local function read_record(file, left)
  local line = file:read("L")
  if not line then
    return nil
  elseif line:sub(-1) ~= "\n" then
    return false, #line <= HEAD_MAX and #line or nil
  end
  local item_len, value_len, check = line:match("^(%d+) (%d+) (%x+) %x+\n$")
  item_len, value_len = math.tointeger(tonumber(item_len)), math.tointeger(tonumber(value_len))
  check = check and math.tointeger(tonumber(check, 16))
  if not (item_len and value_len and check)
    or head_of(item_len, value_len, check) ~= line then
    return false
  elseif #line + item_len + value_len + 1 > left then
    return false, #line
  end
  local body = file:read(item_len + value_len + 1)
  local item, value = body:sub(1, item_len), body:sub(item_len + 1, -2)
  if body:sub(-1) ~= "\n" or core.checksum(item, value) ~= check then
    return false
  end
  return item, value
end

-- Blank out what was cut short, its head last: until then it is what it was.
local function blank_out(file, name, at, head_len, size)
  for _, part in ipairs { { at + head_len, size }, { at, at + head_len } } do
    file:seek("set", part[1])
    local ok, text = file:write(("\n"):rep(part[2] - part[1]))
    if ok then
      ok, text = file:flush()
    end
    if not ok then
      refuse("cannot write the journal %s: %s", name, text)
    end
  end
end

local function skip_blanks(file, at, size)
  while at < size do
    file:seek("set", at)
    local text = file:read(math.min(4096, size - at))
    local blank = #text:match("^\n*")
    at = at + blank
    if blank < #text then
      break
    end
  end
  file:seek("set", at)
  return at
end

-- The records of the file: item -> { value, value, … }, in their order.
local function read_all(file, name, size)
  local known, at = {}, #MAGIC
  local magic = file:read(math.min(#MAGIC, size)) or ""
  if magic ~= MAGIC:sub(1, #magic) then
    refuse("%s is no journal", name)
  elseif #magic < #MAGIC then
    return known, 0
  end
  while true do
    at = skip_blanks(file, at, size)
    local item, value = read_record(file, size - at)
    if item == nil then
      return known, size
    elseif item == false then
      if not value then
        refuse("the journal %s is damaged at byte %d", name, at + 1)
      end
      blank_out(file, name, at, value, size)
      return known, size
    end
    local values = known[item] or { next = 1 }
    values[#values + 1], known[item] = value, values
    at = file:seek("cur")
  end
end

local function must(name, ok, text)
  if not ok then
    refuse("cannot open the journal %s: %s", name, (text:gsub("^.-: ", "")))
  end
  return ok
end

local function open(name)
  local file = io.open(name, "r+b")
  if not file then
    -- "a" makes the file; a directory or a file of others is refused.
    must(name, io.open(name, "ab")):close()
    file = must(name, io.open(name, "r+b"))
  end
  local reader <close> = file
  local size = must(name, reader:seek("end"))
  must(name, reader:seek("set", 0))
  local ok, text = reader:read(0)
  if not ok and text then
    refuse("cannot read the journal %s: %s", name, text)
  end
  local known, good_end = read_all(reader, name, size)
  if good_end == 0 then
    reader:seek("set", 0)
    must(name, reader:write(MAGIC))
    must(name, reader:flush())
  end
  return must(name, io.open(name, "ab")), known
end

---Open the journal `name`, and read what is in it.
function M.open(name)
  local file, known = open(name)
  return setmetatable({ file = file, name = name, known = known, keys = {} }, M)
end

---What the item gave, if it is known.
---@return boolean is_known
---@return any value
function M:find(index, item)
  local key = key_of(index, item)
  local values = self.known[key]
  local bytes = values and values[values.next]
  if bytes then
    values.next = values.next + 1
    return true, (core.decode("lua", bytes))
  end
  self.keys[index] = key
  return false
end

---The item gave this.  What was kept survives the end of this program.
function M:keep(index, value)
  local key, bytes = self.keys[index], core.encode("lua", value)
  self.keys[index] = nil
  if not bytes then -- a codec of the user's made what only lives here
    return
  end
  local ok, text = self.file:write(
    head_of(#key, #bytes, core.checksum(key, bytes)), key, bytes, "\n")
  if ok then
    ok, text = self.file:flush()
  end
  if not ok then
    refuse("cannot write the journal %s: %s", self.name, text)
  end
end

function M:__close()
  self.file:close()
end

return M
