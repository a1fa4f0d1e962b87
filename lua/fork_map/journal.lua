-- SPDX-License-Identifier: MIT
-- A journal: what items gave, kept in a file, so that a program that was ended
-- in the middle does not work on them again.
--
-- The file begins with MAGIC.  A record is "<item length> <value length> <check>\n",
-- the item's bytes, the value's bytes, "\n"; both in the binary codec.  An item is
-- known by its content, wherever it stands in the list.  A last record that was
-- cut short is cut off; anything else that is no record is refused.

local core = require "fork_map.core"

local M = {}
M.__index = M

local MAGIC = "fork_map journal 1\n"

-- Fowler, Noll and Vo's hash, 64 bits, over what a crash may have cut.
local function check_of(item, value)
  local hash = 0xcbf29ce484222325
  for _, text in ipairs { item, value } do
    for i = 1, #text do
      hash = (hash ~ text:byte(i)) * 0x100000001b3
    end
  end
  return ("%016x"):format(hash)
end

local function read_record(file)
  local head = file:read("L")
  if not head then
    return nil
  end
  local item_len, value_len, check = head:match("^(%d+) (%d+) (%x+)\n$")
  if not item_len then
    return false, head:sub(-1) ~= "\n"
  end
  item_len, value_len = math.tointeger(tonumber(item_len)), math.tointeger(tonumber(value_len))
  local item = item_len == 0 and "" or file:read(item_len)
  local value = value_len == 0 and "" or file:read(value_len)
  local tail = file:read(1)
  if tail ~= "\n" then
    return false, tail == nil
  end
  if #item ~= item_len or #value ~= value_len or check_of(item, value) ~= check then
    return false, false
  end
  return item, value
end

-- The records of the file, and where they end.
local function read_all(file, name)
  local known, good_end = {}, #MAGIC
  local magic = file:read(#MAGIC)
  if magic == nil then
    return known, 0
  elseif magic ~= MAGIC then
    error(("fork_map: %s is no journal"):format(name), 0)
  end
  while true do
    local item, value = read_record(file)
    if item == nil then
      return known, good_end
    elseif item == false then
      if value then
        return known, good_end -- cut short
      end
      error(("fork_map: the journal %s is damaged at byte %d"):format(name, good_end + 1), 0)
    end
    known[item] = value
    good_end = file:seek("cur")
  end
end

-- Rewrite what is whole when the end is not.
local function open(name)
  local file = io.open(name, "rb")
  local known, good_end, size = {}, 0, 0
  if file then
    local whole <close> = file
    known, good_end = read_all(whole, name)
    size = whole:seek("end")
    if good_end < size and good_end > 0 then
      whole:seek("set", 0)
      local text = whole:read(good_end)
      local next_name = name .. ".new"
      local out = assert(io.open(next_name, "wb"))
      assert(out:write(text))
      assert(out:close())
      assert(os.rename(next_name, name))
    end
  end
  local out, text = io.open(name, "ab")
  if not out then
    error("fork_map: cannot open the journal " .. text, 0)
  end
  if good_end == 0 then
    assert(out:write(MAGIC))
    assert(out:flush())
  end
  return out, known
end

---Open the journal `name`, and read what is in it.
function M.open(name)
  local file, known = open(name)
  return setmetatable({ file = file, known = known, keys = {} }, M)
end

---What the item gave, if it is known.
---@return boolean is_known
---@return any value
function M:find(index, item)
  local key, _, reason = core.encode("lua", item)
  if not key then
    error(("fork_map: item %d cannot be kept in a journal: %s"):format(index, reason), 0)
  end
  local bytes = self.known[key]
  if bytes then
    return true, (core.decode("lua", bytes))
  end
  self.keys[index] = key
  return false
end

---The item gave this.
function M:keep(index, value)
  local key = self.keys[index]
  local bytes = core.encode("lua", value)
  if not key or not bytes then
    return
  end
  self.keys[index] = nil
  local head = ("%d %d %s\n"):format(#key, #bytes, check_of(key, bytes))
  local ok, text = self.file:write(head, key, bytes, "\n")
  if not ok then
    error("fork_map: cannot write the journal: " .. text, 0)
  end
end

---What was kept survives the end of this program from now on.
function M:flush()
  local ok, text = self.file:flush()
  if not ok then
    error("fork_map: cannot write the journal: " .. text, 0)
  end
end

function M:__close()
  self.file:close()
end

return M
