-- SPDX-License-Identifier: MIT
-- Builds a program from the C files of a directory, as far as it is not built yet:
-- every target runs in a child as soon as those that it needs are there, which are
-- futures among its arguments.  The first error ends the rest.
--
--   lua5.4 examples/build.lua DIRECTORY [PROGRAM]
--
-- Objects and the program (DIRECTORY/program) are written beside the sources.  A
-- target is built when something that it needs is newer, headers included.

local fork_map = require("fork_map")

local DIRECTORY = arg[1] or error("usage: build.lua DIRECTORY [PROGRAM]", 0)
local PROGRAM = arg[2] or DIRECTORY .. "/program"

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

---What a command prints; nil and that when it fails.
local function capture(command)
  local pipe <close> = assert(io.popen(command .. " 2>&1"))
  local text = pipe:read("a")
  return pipe:close() and text or nil, text
end

local function list_sources()
  local sources = {}
  local found = capture("find " .. quote(DIRECTORY) .. " -maxdepth 1 -name '*.c'") or ""
  for path in found:gmatch("[^\n]+") do
    sources[#sources + 1] = path
  end
  table.sort(sources)
  return sources
end

---The files that a source is made of: itself and what it includes.
local function list_needs(source)
  local rule = capture("cc -MM " .. quote(source)) or source
  local needs = {}
  for path in rule:gsub("^.-:", ""):gsub("\\\n", ""):gmatch("%S+") do
    needs[#needs + 1] = path
  end
  return needs
end

---Whether a target is there, and none of these files is newer.
local function is_current(target, needs)
  local quoted = {}
  for i, path in ipairs(needs) do
    quoted[i] = quote(path)
  end
  local command = "find %s -newer %s -print -quit"
  return capture(command:format(table.concat(quoted, " "), quote(target))) == ""
end

--------------------------------------------------------------------------------
-- What children do.  Each returns what its target is, and whether it was built.

local function run(name, command)
  local ok, text = capture(command)
  if not ok then
    error({ target = name, text = text })
  end
end

local function compile(source)
  local object = source:gsub("%.c$", ".o")
  if is_current(object, list_needs(source)) then
    return { path = object, is_built = false }
  end
  run(source, ("cc -c -o %s %s"):format(quote(object), quote(source)))
  return { path = object, is_built = true }
end

local function link(program, ...)
  local paths, quoted, is_built = {}, {}, false
  for i, object in ipairs { ... } do
    paths[i], quoted[i] = object.path, quote(object.path)
    is_built = is_built or object.is_built
  end
  if not is_built and is_current(program, paths) then
    return { path = program, is_built = false }
  end
  run(program, ("cc -o %s %s"):format(quote(program), table.concat(quoted, " ")))
  return { path = program, is_built = true }
end

--------------------------------------------------------------------------------

local sources = list_sources()
if #sources == 0 then
  error("no C files in " .. DIRECTORY, 0)
end

local n_built = 0
local ok, err = pcall(fork_map.nursery, function(n)
  local objects = {}
  for i, source in ipairs(sources) do
    objects[i] = n:spawn(compile, source)
  end
  n:spawn(link, PROGRAM, table.unpack(objects)) -- begins when all are there
  for target in n:results() do
    local done, value = target:poll()
    if done and value.is_built then
      n_built = n_built + 1
      print("built " .. value.path)
    end
  end
end, { grace = 0 })

if not ok then
  local failure = type(err.value) == "table" and err.value or { target = "?", text = err.message }
  io.stderr:write(("%s failed, the rest was cancelled\n%s"):format(failure.target, failure.text))
  os.exit(1, true)
end
print(("%d targets, %d built"):format(#sources + 1, n_built))
