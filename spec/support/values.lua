-- SPDX-License-Identifier: MIT
-- Values for specs: exact comparison, random ones, and what lua-cjson can carry.

local M = {}

---The bits of a number, with its subtype.
local function bits(number)
  return math.type(number) .. string.pack(math.type(number) == "integer" and "<j" or "<d", number)
end

local same

---Do the raw contents of two tables correspond?  Keys that are tables are only
---compared when there is one of them.
local function same_tables(a, b, seen, path)
  if seen[a] or seen[b] then
    return seen[a] == b and seen[b] == a, path
  end
  seen[a], seen[b] = b, a
  local table_key
  for key, value in next, a do
    if type(key) == "table" then
      assert(table_key == nil, "more than one key is a table")
      table_key = key
    else
      local is_same, where = same(value, rawget(b, key), seen, ("%s[%s]"):format(path, key))
      if not is_same then
        return false, where
      end
    end
  end
  for key, value in next, b do
    if type(key) ~= "table" then
      if rawget(a, key) == nil then
        return false, ("%s[%s]"):format(path, key)
      end
    elseif table_key == nil or not same(table_key, key, seen, path)
      or not same(a[table_key], value, seen, path) then
      return false, path .. "[table]"
    else
      table_key = nil
    end
  end
  return table_key == nil, path .. "[table]"
end

function same(a, b, seen, path)
  if type(a) ~= type(b) then
    return false, path
  elseif type(a) == "table" then
    return same_tables(a, b, seen, path)
  elseif type(a) == "number" then
    return bits(a) == bits(b), path
  end
  return a == b, path
end

---True when two values are the same to the last bit, subtypes and identities of
---tables included; else false and where they differ.
function M.same(a, b)
  return same(a, b, {}, "value")
end

---Like the asserts of luassert, for packed values `{n = …}`.
function M.assert_same(expected, actual)
  local is_same, where = M.same(expected, actual)
  if not is_same then
    error("values differ at " .. where, 2)
  end
end

---Numbers that random ones rarely hit.
M.integers = {
  0, 1, -1, 31, 32, -32, -33, 63, 64, 127, 128, -128, -129, 255, 256, 32767, 32768, -32768, -32769,
  65535, 65536, 2147483647, 2147483648, -2147483648, -2147483649, 4294967295, 4294967296,
  (1 << 53) - 1, 1 << 53, (1 << 53) + 1, -(1 << 53) - 1, 10 ^ 14 // 1 | 0, 999999999999999,
  1000000000000000, math.maxinteger, math.maxinteger - 1, math.mininteger, math.mininteger + 1,
}

M.floats = {
  0.0, -0.0, 1.0, -1.0, 0.1, 0.2, 0.1 + 0.2, 1 / 3, math.pi, 2.0 ^ 53, 2.0 ^ 53 + 2, 2.0 ^ 63,
  -2.0 ^ 63, 2.0 ^ 64, 1e15, 1e16, 1e17, 1e21, 1e22, 1e23, 1e100, 1e300, 5e-324, 2.5e-320,
  0x1p-1022, 0x1.fffffffffffffp-1023, 0x1.fffffffffffffp1023, -0x1.fffffffffffffp1023,
  0x1.0000000000001p0, 123456789.125, 1e-5, 1e-7, 9007199254740993.0,
}

M.not_finite = {
  math.huge, -math.huge, 0 / 0, -(0 / 0), string.unpack("<d", "\1\0\0\0\0\0\xf8\x7f"),
  string.unpack("<d", "\xef\xbe\xad\xde\0\0\xf8\xff"),
}

---A double of random bits.
function M.random_double()
  return (string.unpack("<d", string.pack("<j", math.random(0))))
end

---`n` doubles of random bits, and those of them that are finite.
function M.random_doubles(n)
  local all, finite = {}, {}
  for i = 1, n do
    local double = M.random_double()
    all[i] = double
    if double - double == 0 then
      finite[#finite + 1] = double
    end
  end
  return all, finite
end

local function random_name()
  local bytes = {}
  for i = 1, math.random(0, 9) do
    bytes[i] = string.char(math.random(97, 122))
  end
  return table.concat(bytes)
end

---A string that is UTF-8, of all lengths of characters, with controls.
local function random_text()
  local characters = {}
  for i = 1, math.random(0, 12) do
    local code = math.random(0, ({ 0x7f, 0x7f, 0x7ff, 0xd7ff, 0x10ffff })[math.random(5)])
    if code >= 0xd800 and code <= 0xdfff then
      code = 0x2603
    end
    characters[i] = utf8.char(code)
  end
  return table.concat(characters)
end

---A number that lua-cjson 2.1.0 carries, which writes 14 digits.
local function random_cjson_number()
  local kind = math.random(4)
  if kind == 1 then
    return math.random(-99, 99)
  elseif kind == 2 then
    return math.random(-10 ^ 13 // 1, 10 ^ 13 // 1)
  end
  return math.random(-10 ^ 9 // 1, 10 ^ 9 // 1) / 10 ^ math.random(0, 5)
end

---A value that both JSON and lua-cjson carry.  `null` stands for JSON's.
function M.random_cjson(null, depth)
  local kind = math.random(depth > 0 and 8 or 6)
  if kind == 1 then
    return math.random(2) == 1
  elseif kind == 2 then
    return null
  elseif kind <= 4 then
    return random_cjson_number()
  elseif kind == 5 then
    return random_name()
  elseif kind == 6 then
    return random_text()
  end
  local value = {}
  for i = 1, math.random(0, 6) do
    value[kind == 7 and i or "k" .. random_name()] = M.random_cjson(null, depth - 1)
  end
  return value
end

local function random_key()
  local kind = math.random(6)
  if kind <= 2 then
    return random_name()
  elseif kind <= 4 then
    return math.random(-3, 9)
  elseif kind == 5 then
    return math.random(1, 9) + 0.5
  end
  return math.random(2) == 1
end

local function random_scalar()
  local kind = math.random(8)
  if kind == 1 then
    return math.random(2) == 1
  elseif kind <= 3 then
    return math.random(0) >> math.random(0, 63)
  elseif kind == 4 then
    return M.integers[math.random(#M.integers)]
  elseif kind == 5 then
    return M.random_double()
  elseif kind == 6 then
    return random_text()
  elseif kind == 7 then
    return string.pack("<j", math.random(0)):sub(1, math.random(0, 8))
  end
  return M.floats[math.random(#M.floats)]
end

---Any data value of Lua, with holes, keys of all kinds and shared tables.
function M.random(depth, tables)
  tables = tables or {}
  local kind = math.random(depth > 0 and 10 or 6)
  if kind <= 6 then
    return random_scalar()
  elseif kind == 7 and #tables > 0 then
    return tables[math.random(#tables)]
  end
  local value = {}
  tables[#tables + 1] = value
  for i = 1, math.random(0, 12) do
    if kind == 8 and math.random(9) > 1 then
      value[i] = M.random(depth - 1, tables)
    elseif kind >= 9 then
      value[random_key()] = M.random(depth - 1, tables)
    end
  end
  return value
end

---What lua-cjson makes of integers: floats, in the releases before integers.
---Returns a copy with every number that is integral as an integer.
function M.with_integers(value)
  if type(value) == "number" then
    return math.tointeger(value) or value
  elseif type(value) ~= "table" then
    return value
  end
  local copy = {}
  for key, item in next, value do
    copy[key] = M.with_integers(item)
  end
  return copy
end

---A table nested so many levels deep, in lists and objects in turn.
function M.nested(levels)
  local value = { "bottom" }
  for i = 2, levels do
    value = i % 2 == 0 and { a = value } or { value }
  end
  return value
end

return M
