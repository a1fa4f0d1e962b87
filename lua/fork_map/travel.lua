-- SPDX-License-Identifier: MIT
-- Functions that travel to another process, which is no copy of this one: by name,
-- or as the code of a Lua function that captures nothing but its globals.
--
-- They go one way only, from a parent to a process of its own.  What comes back is
-- never given to unpack(): it loads code, which a hostile process could forge.

local M = {}

-- What load() gives a chunk as its _ENV, whatever the names _G and _ENV say here.
local globals = load "return _ENV" ()

local RULE = "only _ENV can be captured by a function that is run in a template"

-- Why this upvalue cannot travel, or nil.
local function find_refusal(name, value)
  local is_nameless = name == "(no name)" -- its debug information was stripped
  if rawequal(value, globals) and (name == "_ENV" or is_nameless) then
    return nil
  elseif name == "_ENV" then
    return "the function captures an _ENV that is not the table of globals; " .. RULE
  elseif is_nameless then
    return "the function captures something that has lost its name; " .. RULE
  end
  return ('the function captures "%s"; %s'):format(name, RULE)
end

-- Code by its function, which never changes.
local dumps = setmetatable({}, { __mode = "k" })

local function dump(fn)
  local text = dumps[fn]
  if not text then
    text = string.dump(fn) -- with what tracebacks need
    dumps[fn] = text
  end
  return text
end

local function pack_function(fn)
  if debug.getinfo(fn, "S").what == "C" then
    return nil, 'a function of C cannot be sent; name it as "module:function"'
  end
  local i = 1
  while true do
    local name, value = debug.getupvalue(fn, i)
    if not name then
      return "dump", dump(fn)
    end
    local refusal = find_refusal(name, value)
    if refusal then
      return nil, refusal
    end
    i = i + 1
  end
end

-- A path of names, "a.b.c", whose parts match `part`; false when it is none.
local function is_path(text, part)
  for name in (text .. "."):gmatch("(.-)%.") do
    if not name:find(part) then
      return false
    end
  end
  return true
end

-- The two sides of "module:function", or nil.
local function split(text)
  local module, path = text:match("^([^:]+):([^:]+)$")
  if module and is_path(module, "^[^%s%c]+$") and is_path(path, "^[%a_][%w_]*$") then
    return module, path
  end
end

local function pack_name(text)
  if not split(text) then
    return nil, ('"%s" is no name of the form "module:function"'):format(text)
  end
  return "name", text
end

---What is sent for a function: the name "module:function" itself, whose function may
---be a path as in "module:class.method", or the code of a Lua function.
---@param fn function|string
---@return "name"|"dump"|nil kind
---@return string text or why it cannot be sent
function M.pack(fn)
  if type(fn) == "function" then
    return pack_function(fn)
  elseif type(fn) == "string" then
    return pack_name(fn)
  end
  return nil, ('a function or "module:function" is expected, not a %s'):format(type(fn))
end

local function is_callable(value)
  local meta = debug.getmetatable(value)
  return type(value) == "function" or type(meta) == "table" and rawget(meta, "__call") ~= nil
end

local function find(module, path)
  local value = require(module)
  for name in path:gmatch("[^.]+") do
    value = value[name]
    if value == nil then
      error(('module "%s" has no "%s"'):format(module, path), 0)
    end
  end
  if not is_callable(value) then
    error(('"%s" of module "%s" is a %s, not a function'):format(path, module, type(value)), 0)
  end
  return value
end

local function unpack_name(text)
  local module, path = split(text)
  if not module then
    return nil, ('"%s" is no name of the form "module:function"'):format(text)
  end
  local ok, found = pcall(find, module, path)
  if not ok then
    return nil, tostring(found)
  end
  return found
end

local function unpack_dump(text)
  local fn, problem = load(text, nil, "b")
  if not fn then
    return nil, problem
  end
  local i = 1
  while debug.setupvalue(fn, i, globals) do
    i = i + 1
  end
  return fn
end

---The function again, in the process that it was sent to.  For a name its module is
---required.
---@param kind "name"|"dump"
---@param text string
---@return function? fn or what else can be called
---@return string? text what is wrong, such as what require() raised
function M.unpack(kind, text)
  if kind == "name" then
    return unpack_name(text)
  elseif kind == "dump" then
    return unpack_dump(text)
  end
  return nil, ("a function cannot come as %s"):format(tostring(kind))
end

---What is sent for code that is to be run: source text, or a function as by pack().
---@param code function|string
---@return "source"|"name"|"dump"|nil kind
---@return string text or why it cannot be sent
function M.pack_code(code)
  if type(code) == "string" then
    local fn, problem = load(code, "=(eval)", "t")
    return fn and "source", fn and code or problem
  elseif type(code) == "function" then
    return pack_function(code)
  end
  return nil, ("source text or a function is expected, not a %s"):format(type(code))
end

---The code as a function, in the process that it was sent to.
---@param kind string
---@param text string
---@return function?
---@return string? problem
function M.unpack_code(kind, text)
  if kind == "source" then
    return load(text, "=(eval)", "t")
  end
  return M.unpack(kind, text)
end

return M
