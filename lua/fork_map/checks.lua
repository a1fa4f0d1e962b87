-- SPDX-License-Identifier: MIT
-- What values options may have: each check gives the value as it is used, or nil and
-- what was expected.

local UNITS = { K = 1 << 10, M = 1 << 20, G = 1 << 30 }

local function is_finite(value)
  return math.type(value) ~= nil and value == value and value < math.huge and value > -math.huge
end

-- Seconds; `math.huge` is how a view says "none" over another view's limit.
local function duration(value)
  if value == math.huge then
    return false
  end
  if is_finite(value) and value > 0 then
    return value
  end
  return nil, "a number of seconds above 0"
end

local function pause(value)
  if is_finite(value) and value >= 0 then
    return value
  end
  return nil, "a number of seconds, 0 or more"
end

local function integer(min, max)
  local expected = ("an integer from %d to %d"):format(min, max)
  return function(value)
    local n = math.type(value) and math.tointeger(value)
    if n and n >= min and n <= max then
      return n
    end
    return nil, expected
  end
end

-- A text such as "512M" in bytes, or nil.  The product must not wrap.
local function parse_size(text)
  local digits, unit = text:match("^(%d+)([KMG]?)$")
  local n = digits and math.tointeger(digits)
  local factor = UNITS[unit] or 1
  if n and n <= math.maxinteger // factor then
    return n * factor
  end
end

local function size(min)
  local expected = ('a number of bytes from %d on, or a text such as "512M"'):format(min)
  return function(value)
    local n
    if type(value) == "string" then
      n = parse_size(value)
    else
      n = math.type(value) and math.tointeger(value)
    end
    if n and n >= min then
      return n
    end
    return nil, expected
  end
end

local function one_of(...)
  local names, quoted = {}, {}
  for i, name in ipairs { ... } do
    names[name] = true
    quoted[i] = ("%q"):format(name)
  end
  local expected = table.concat(quoted, ", ", 1, #quoted - 1) .. " or " .. quoted[#quoted]
  return function(value)
    if names[value] then
      return value
    end
    return nil, expected
  end
end

-- `check`, or a function.
local function or_function(check)
  return function(value)
    if type(value) == "function" then
      return value
    end
    local checked, expected = check(value)
    if checked == nil then
      return nil, expected .. ", or a function"
    end
    return checked
  end
end

local function callback(value)
  if value == false or type(value) == "function" then
    return value
  end
  return nil, "a function, or false for none"
end

local function show(value)
  if type(value) == "string" then
    return ("%q"):format(#value <= 40 and value or value:sub(1, 37) .. "...")
  elseif type(value) == "number" or type(value) == "boolean" then
    return tostring(value)
  end
  return "a " .. type(value)
end

-- A list 1..n whose items pass `check`; a copy of it.  When one does not, the
-- third result says which.
local function list_of(check, expected)
  return function(value)
    if type(value) ~= "table" then
      return nil, expected
    end
    local copy, n = {}, #value
    for key, item in next, value do
      local checked = check(item)
      if math.type(key) ~= "integer" or key < 1 or key > n then
        return nil, expected
      elseif checked == nil then
        return nil, expected, "one with " .. show(item)
      end
      copy[key] = checked
    end
    return copy
  end
end

-- Kinds that another attempt can change.  The others are the caller's doing.
local retryable = list_of(
  one_of(
    "error", "exit", "signal", "no_result", "timeout", "limit", "encode", "protocol", "spawn"
  ),
  'a list of kinds such as {"signal", "exit"}'
)

local fds = list_of(integer(0, 0x7FFFFFFF), '"all" or a list of descriptors')

local function keep_fds(value)
  if value == "all" then
    return false
  end
  return fds(value)
end

local codec_name = one_of("auto", "json", "lua", "cjson")

local function codec(value)
  if type(value) ~= "table" then
    local name, expected = codec_name(value)
    return name, expected and expected .. ", or a table {encode =, decode =}"
  end
  local n = 0
  for _ in next, value do
    n = n + 1
  end
  if n == 2 and type(value.encode) == "function" and type(value.decode) == "function" then
    return { encode = value.encode, decode = value.decode }
  end
  return nil, "a table {encode =, decode =} of two functions"
end

-- A label goes into titles and errors: short, without a zero byte.
local function label(value)
  if type(value) == "string" and #value <= 200 and value:find("^[^%z]+$") then
    return value
  end
  return nil, "a text of 1 to 200 bytes without a zero"
end

local function number_of_seed(value)
  local n = math.type(value) and math.tointeger(value)
  if n then
    return n
  end
  return nil, "an integer"
end

local function find_spawn(value)
  return value.spawn
end

-- Whatever has a method `spawn`.  The module is none, though it has a function of
-- that name.
local function executor(value)
  if value == false then
    return false
  end
  local is_object = type(value) == "table" or type(value) == "userdata"
  local ok, spawn = pcall(find_spawn, value)
  if is_object and ok and type(spawn) == "function" and value ~= package.loaded.fork_map then
    return value
  end
  return nil, "an executor, which has a method spawn, such as fork_map.engine()"
end

-- A count of workers: of its own, or as a share of what this process may use.
local function count(value)
  if type(value) == "string" then
    local percent = value:match("^(%d%d?%d?)%%$")
    if value == "auto" or value:match("^auto%-%d%d?%d?$") or (percent and percent ~= "0") then
      return value
    end
  end
  local n = math.type(value) and math.tointeger(value)
  if n and n >= 0 and n <= 4096 then
    return n
  end
  return nil, '0 to 4096, "auto", or a text such as "50%" or "auto-1"'
end

local CHUNK_MAX = (1 << 22) - 1
local chunk_size = integer(1, CHUNK_MAX)

local function chunk(value)
  if value == "auto" then
    return value
  elseif type(value) ~= "table" then
    local n, expected = chunk_size(value)
    return n, expected and '"auto", ' .. expected .. ", or a table {min =, max =}"
  end
  local min, max = value.min or 1, value.max or CHUNK_MAX
  for name in next, value do
    if name ~= "min" and name ~= "max" then
      return nil, "a table {min =, max =}", "one with " .. tostring(name)
    end
  end
  if chunk_size(min) and chunk_size(max) and min <= max then
    return { min = math.tointeger(min), max = math.tointeger(max) }
  end
  return nil, ("a table {min =, max =} with 1 <= min <= max <= %d"):format(CHUNK_MAX)
end

local function file_name(value)
  if type(value) == "string" and value:find("^[^%z]+$") then
    return value
  end
  return nil, "the name of a file"
end

local function flag_or_function(value)
  if type(value) == "boolean" or type(value) == "function" then
    return value
  end
  return nil, "true, false or a function"
end

return {
  duration = duration,
  pause = pause,
  integer = integer,
  size = size,
  one_of = one_of,
  or_function = or_function,
  callback = callback,
  show = show,
  retryable = retryable,
  keep_fds = keep_fds,
  codec = codec,
  label = label,
  number_of_seed = number_of_seed,
  executor = executor,
  count = count,
  chunk = chunk,
  file_name = file_name,
  flag_or_function = flag_or_function,
}
