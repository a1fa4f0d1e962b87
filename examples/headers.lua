-- SPDX-License-Identifier: MIT
-- Analyses the C headers below /usr/include twice: here, one after the other,
-- and with fork_map.map, in as many processes as this machine has processors.
-- In the middle of the list is one header that crashes whoever analyses it.
-- That costs its own result and nothing else: all others are there, in order,
-- and equal those of the first run to the last bit.
--
--   lua5.4 examples/headers.lua [HOW_MANY] [DIRECTORY]

local fork_map = require("fork_map")

local HOW_MANY = math.tointeger(tonumber(arg[1] or 3000)) or error("HOW_MANY is a number")
local DIRECTORY = arg[2] or "/usr/include"

--------------------------------------------------------------------------------
-- The analysis: ordinary Lua code that knows nothing of processes.

---Blank out comments, strings and character constants, keeping line breaks.
local function strip(text)
  local parts, from = {}, 1
  while true do
    local at = text:find("[\"'/]", from)
    if not at then
      break
    end
    local start = text:sub(at, at + 1)
    local _, to
    if start == "/*" then
      _, to = text:find("*/", at + 2, true)
    elseif start == "//" then
      to = (text:find("\n", at, true) or #text + 1) - 1
    elseif start:sub(1, 1) == "/" then
      to = at - 1 -- a division
    else
      local quote = start:sub(1, 1)
      to = at
      repeat
        to = text:find('[\\"\'\n]', to + 1)
        local c = to and text:sub(to, to)
        if c == "\\" then
          to = to + 1
        end
      until not to or c == quote or c == "\n"
    end
    to = to or #text
    parts[#parts + 1] = text:sub(from, at - 1)
    parts[#parts + 1] = to < at and "/" or (text:sub(at, to):gsub("[^\n]+", " "))
    from = math.max(to, at) + 1
  end
  parts[#parts + 1] = text:sub(from)
  return table.concat(parts)
end

---Rules that were compiled earlier and are loaded by name, to save time.
local rules = {}

---A header may name a compiled rule that it wants to be checked with.
local function apply_rule(text)
  local name = text:match("/%* rule: (%w+) %*/")
  return name and rules[name] and load(rules[name], name, "b")(text)
end

---What is in one header: sizes, macros, conditionals, the commonest names.
local function analyse(path)
  local file <close> = assert(io.open(path, "rb"))
  local text = file:read("a")
  apply_rule(text)

  local found = { path = path, bytes = #text, lines = 0, code = 0, depth = 0, words = 0,
    includes = {}, macros = {} }
  local depth, count = 0, {}
  for line in text:gmatch("#%s*include%s*([<\"][^>\"\n]+)") do
    found.includes[#found.includes + 1] = line:sub(2)
  end
  for line in strip(text):gmatch("([^\n]*)\n?") do
    found.lines = found.lines + 1
    local directive, argument = line:match("^%s*#%s*(%a+)%s*([%w_]*)")
    if directive == "define" then
      found.macros[#found.macros + 1] = argument
    elseif directive and directive:find("^if") then
      depth = depth + 1
      found.depth = math.max(found.depth, depth)
    elseif directive == "endif" then
      depth = depth - 1
    end
    if line:find("%S") then
      found.code = found.code + 1
    end
    for word in line:gmatch("[%a_][%w_]*") do
      count[word] = (count[word] or 0) + 1
      found.words = found.words + 1
    end
  end

  local names = {}
  for name in pairs(count) do
    names[#names + 1] = name
  end
  table.sort(names, function(a, b)
    return count[a] > count[b] or count[a] == count[b] and a < b
  end)
  found.commonest = table.move(names, 1, math.min(10, #names), 1, {})
  found.macros_per_line = #found.macros / found.lines
  return found
end

--------------------------------------------------------------------------------
-- The poisoned header: its rule was damaged on disk, one jump goes nowhere.
-- Lua does not verify what was compiled, so loading it is fine and running it
-- is a segmentation fault, which no pcall can catch.

local function poison(path)
  local loop = string.dump(load("while true do end"), true)
  local jump_back = string.pack("<I4", (0xffffff - 1) << 7 | 56)
  local jump_far = string.pack("<I4", 0x1ffffff << 7 | 56)
  local at = loop:find(jump_back, 1, true)
  if at then
    rules.damaged = loop:sub(1, at - 1) .. jump_far .. loop:sub(at + 4)
  else -- compiled differently here: let it end itself the same way
    rules.damaged = string.dump(function()
      local pid = io.open("/proc/self/stat"):read("n")
      os.execute("kill -SEGV " .. pid)
    end)
  end
  local file <close> = assert(io.open(path, "w"))
  assert(file:write("/* rule: damaged */\n#define POISON 1\n"))
end

--------------------------------------------------------------------------------

local function find_headers()
  local pipe <close> = assert(io.popen(("find %s -name '*.h' -type f | LC_ALL=C sort"):format(
    "'" .. DIRECTORY:gsub("'", "'\\''") .. "'")))
  local all = {}
  for path in pipe:lines() do
    all[#all + 1] = path
  end
  -- An even sample, so that a few hundred show as much variety as all of them.
  local some, step = {}, math.max(1, #all / HOW_MANY)
  for i = 1, math.min(HOW_MANY, #all) do
    some[i] = all[math.floor((i - 1) * step) + 1]
  end
  return some, #all
end

---Equal to the last bit: integers and floats apart, tables by content.
local function equal(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then
    return math.type(a) == math.type(b) and a == b
  end
  for k, v in pairs(a) do
    if not equal(v, b[k]) then
      return false
    end
  end
  for k in pairs(b) do
    if a[k] == nil then
      return false
    end
  end
  return true
end

---Seconds since some moment; the clock on the wall, as os.clock() does not count
---the processors of others.
local function now()
  local file <close> = assert(io.open("/proc/uptime"))
  return file:read("n")
end

---The sum of all results, in their order; a float's last bits depend on it.
local function summarise(results)
  local sum = { headers = 0, lines = 0, code = 0, macros = 0, words = 0, depth = 0, density = 0.0 }
  for i = 1, results.n do
    local one = results[i]
    if one then
      sum.headers = sum.headers + 1
      sum.lines = sum.lines + one.lines
      sum.code = sum.code + one.code
      sum.macros = sum.macros + #one.macros
      sum.words = sum.words + one.words
      sum.depth = math.max(sum.depth, one.depth)
      sum.density = sum.density + one.macros_per_line
    end
  end
  return sum
end

local inputs, n_found = find_headers()
assert(#inputs > 1, "no headers below " .. DIRECTORY)
for _, path in ipairs(inputs) do -- so that neither run waits for the disk
  local file <close> = assert(io.open(path, "rb"))
  assert(file:read("a"))
end
local poisoned, middle = os.tmpname(), #inputs // 2 + 1
poison(poisoned)
table.insert(inputs, middle, poisoned)

print(("%d of %d headers below %s, and a poisoned one"):format(#inputs - 1, n_found, DIRECTORY))

local began = now()
local expected = { n = #inputs }
for i, path in ipairs(inputs) do
  if i ~= middle then -- here it would be the end
    expected[i] = analyse(path)
  end
end
local alone = now() - began

began = now()
local results, errors = fork_map.map(inputs, analyse, { on_error = "collect", progress = true })
local together = now() - began
os.remove(poisoned)

local right = 0
for i = 1, #inputs do
  right = right + (i ~= middle and equal(results[i], expected[i]) and 1 or 0)
end
local sum = summarise(results)
print(("%d lines, %d of them code; %d macros; conditionals %d deep"):format(
  sum.lines, sum.code, sum.macros, sum.depth))
print(("%d of %d results equal those of a loop without processes, to the last bit"):format(
  right, #inputs - 1))
print(("%.1f times as fast as that loop"):format(alone / math.max(together, 0.01)))

local n_errors = 0
for i, err in pairs(errors or {}) do
  n_errors = n_errors + 1
  print(("item %d failed: index = %d, kind = %q, signame = %q, pid = %d"):format(
    i, err.index, err.kind, tostring(err.signame), err.pid))
  print("  " .. tostring(err))
end

local err = errors and errors[middle]
local as_promised = right == #inputs - 1 and results.n == #inputs and results[middle] == nil
  and equal(sum, summarise(expected)) and n_errors == 1 and err.index == middle
  and err.kind == "signal" and err.signame == "SIGSEGV"
print(as_promised and "As promised: the crash cost its own result and nothing else."
  or "NOT as promised.")
os.exit(as_promised, true)
