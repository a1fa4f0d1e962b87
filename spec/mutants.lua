-- SPDX-License-Identifier: MIT
--
-- Run by spec/mutants.sh: lua5.4 spec/mutants.lua DIRECTORY [NAME...], where
-- DIRECTORY has a copy of the project in `tree`, built as preset dev, and the
-- program `reaper`.

package.path = "./spec/?.lua;" .. package.path

local mutants = require "support.mutants"

local dir = arg[1]
local tree = dir .. "/tree"
local build = tree .. "/build/dev"
local wanted = {}
for i = 2, #arg do
  wanted[arg[i]] = true
end

-- Seconds that one test may take: a mutant may hang.
local SECONDS = 40

local function read(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read("a")
end

local function write(path, text)
  local file <close> = assert(io.open(path, "wb"))
  assert(file:write(text))
end

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

-- Whether the shell command succeeds; what it prints is kept in DIRECTORY/log.
local function succeeds(command)
  local text = "cd %s && { %s; } >%s/log 2>&1 </dev/null"
  return os.execute(text:format(quote(tree), command, dir)) == true
end

-- The command that runs one test, and what must be built for it.  A test is
-- "test_file name_of_the_test", "host/zoo values" or "file_spec.lua filter".
local function command_of(test)
  local file, name = test:match("^(%S+) (.+)$")
  local host = file:match("^host/(.*)$")
  if host then
    return ("%s/reaper %d %s/%s %s"):format(dir, SECONDS, build, file, name), "host_" .. host
  elseif not file:find("%.lua$") then
    return ("%s/reaper %d %s/c/%s %s"):format(dir, SECONDS, build, file, name), file
  end
  local text = "LUA_PATH='./lua/?.lua;./spec/?.lua;;' LUA_CPATH='%s/lua/?.so;;' %s/reaper %d "
    .. "lua5.4 spec/support/busted.lua -o plainTerminal --filter=%s spec/%s"
  return text:format(build, dir, SECONDS, quote(name), file), "fork_map_module"
end

local function make(targets)
  local names = {}
  for name in pairs(targets) do
    names[#names + 1] = name
  end
  return succeeds("cmake --build " .. build .. " --target " .. table.concat(names, " "))
end

-- A test that runs nothing would be noticed by no mutant.
local function passes(test)
  local ok = succeeds((command_of(test)))
  return ok and not read(dir .. "/log"):find("\n0 successes", 1, true)
end

-- Replace texts in files of the copy.  Returns what they were.
local function change(edits)
  local before = {}
  for _, edit in ipairs(edits) do
    local path, from, to = tree .. "/" .. edit[1], edit[2], edit[3]
    local text = read(path)
    local at, last = text:find(from, 1, true)
    if not at or text:find(from, last + 1, true) then
      error(("%s must contain, once:\n%s"):format(edit[1], from), 0)
    end
    before[path] = before[path] or text
    write(path, text:sub(1, at - 1) .. to .. text:sub(last + 1))
  end
  return before
end

-- The tests that fail, or nil when it cannot be built.
local function try(mutant)
  local targets, failed = {}, {}
  for _, test in ipairs(mutant.tests) do
    local _, target = command_of(test)
    targets[target] = true
  end
  local before = change(mutant.edits)
  local built = make(targets)
  for _, test in ipairs(built and mutant.tests or {}) do
    if not passes(test) then
      failed[#failed + 1] = test
    end
  end
  for path, text in pairs(before) do
    write(path, text)
  end
  return built and failed or nil
end

-- All tests must pass without a change.
local function check_tests()
  local seen = {}
  for _, mutant in ipairs(mutants) do
    for _, test in ipairs(mutant.tests) do
      if not seen[test] and (not next(wanted) or wanted[mutant.name]) then
        seen[test] = true
        if not passes(test) then
          error(test .. " fails without a mutant:\n" .. read(dir .. "/log"), 0)
        end
      end
    end
  end
end

local function tell(mutant, failed)
  if not failed then
    print(("%s: does not compile\n%s"):format(mutant.name, read(dir .. "/log")))
  elseif #failed == 0 then
    print(mutant.name .. ": NOT NOTICED")
  else
    print(("%s: noticed by %s"):format(mutant.name, table.concat(failed, ", ")))
  end
  io.flush()
end

check_tests()
local n, unnoticed = 0, 0
for _, mutant in ipairs(mutants) do
  if not next(wanted) or wanted[mutant.name] then
    local failed = try(mutant)
    n = n + 1
    if not failed or #failed == 0 then
      unnoticed = unnoticed + 1
    end
    tell(mutant, failed)
  end
end
print(("%d mutants, %d unnoticed"):format(n, unnoticed))
os.exit(n > 0 and unnoticed == 0)
