-- SPDX-License-Identifier: MIT
-- What the documentation shows is run, and what exists is documented.

local project = require("support.project")
local q, run = project.quote, project.run

local PAGES = { "README.md", "docs/api.md", "docs/hazards.md", "docs/limits.md",
  "docs/reliability.md" }

---All fenced blocks of a language: { line =, text = }.
local function find_blocks(page, language)
  local blocks, block, number = {}, nil, 0
  for line in (project.read(page) .. "\n"):gmatch("(.-)\n") do
    number = number + 1
    if block and line == "```" then
      block.text = table.concat(block, "\n") .. "\n"
      block = nil
    elseif block then
      block[#block + 1] = line
    elseif line == "```" .. language then
      block = { line = number + 1 }
      blocks[#blocks + 1] = block
    end
  end
  assert.is_nil(block, page .. " ends inside a block")
  return blocks
end

---What the `-->` comments of a block say it prints.
local function expected_output(text)
  local lines = {}
  for line in text:gmatch("%-%->%s*([^\n]*)") do
    lines[#lines + 1] = line .. "\n"
  end
  return table.concat(lines)
end

local function each_block(language, check)
  for _, page in ipairs(PAGES) do
    for _, block in ipairs(find_blocks(page, language)) do
      local tag = block.text:find("fork_map.template", 1, true) and " #not_portable" or ""
      it(("at %s:%d%s"):format(page, block.line, tag), function()
        check(block.text)
      end)
    end
  end
end

-- The sanitizer's allocator does not survive a limit of memory.
describe("the Lua example #not_asan", function()
  local dir

  setup(function()
    dir = project.make_directory()
  end)

  teardown(function()
    project.remove(dir)
  end)

  each_block("lua", function(text)
    local preamble = text:find("require \"fork_map\"", 1, true) and ""
      or 'local fork_map = require "fork_map"; '
    project.write(dir .. "/example.lua", preamble .. text)
    local output = run(("LUA_PATH=%s LUA_CPATH=%s %s %s"):format(
      q(package.path), q(package.cpath), project.lua, q(dir .. "/example.lua")))
    assert.equal(expected_output(text), output)
  end)
end)

describe("the C example", function()
  each_block("c", function(text)
    local file = os.tmpname()
    project.write(file, text)
    run("cc -std=c11 -Wall -Wextra -Werror -fsyntax-only -Isrc $(pkg-config --cflags lua5.4) -x c "
      .. q(file))
    os.remove(file)
  end)
end)

describe("the documentation", function()
  local api = project.read("docs/api.md")

  ---Fields of a LuaCATS class in a file.
  local function fields(file, class)
    local text = project.read(file)
    local pattern = "%-%-%-@class [^\n]-" .. class:gsub("%.", "%%.") .. "%f[^%w_][^\n]*\n(.-)\n[^-]"
    local block = assert((text .. "\n\n"):match(pattern), class)
    local names = {}
    for name in block:gmatch("%-%-%-@field ([%w_]+)") do
      names[#names + 1] = name
    end
    assert.is_true(#names > 0, class)
    return names
  end

  it("names every option", function()
    for _, class in ipairs {
      "fork_map.Limits", "fork_map.Options", "fork_map.EngineOptions", "fork_map.MapOptions",
    } do
      for _, name in ipairs(fields("lua/fork_map/options.lua", class)) do
        assert.is_truthy(api:find("\n| `" .. name .. "` |", 1, true), name)
      end
    end
  end)

  it("names every option of pools", function()
    for _, name in ipairs(fields("lua/fork_map/pool_options.lua", "fork_map.PoolOptions")) do
      assert.is_truthy(api:find("\n| [^|]*`" .. name .. "`[^|]* |"), name)
    end
  end)

  it("names every field and kind of an error", function()
    local kinds = project.read("lua/fork_map/error.lua"):match("@alias fork_map.Kind(.-)\n\n")
    for kind in kinds:gmatch('| "([%w_]+)"') do
      assert.is_truthy(api:find("\n| `" .. kind .. "` |", 1, true), kind)
    end
    for _, name in ipairs(fields("lua/fork_map/error.lua", "fork_map.Error")) do
      assert.is_truthy(api:find("`" .. name .. "`", 1, true), name)
    end
  end)

  it("has a heading for everything in the module", function()
    for name in pairs(require("fork_map")) do
      assert.is_truthy(api:find("\n### fork_map%." .. name .. "[(\n]"), name)
    end
    for name, method in pairs(getmetatable(require("fork_map").engine()).__index) do
      if type(method) == "function" and not name:find("^__") then
        assert.is_truthy(api:find("\n### engine:" .. name .. "(", 1, true), name)
      end
    end
  end)

  it("describes every function of the C half", function()
    local core, described = require("fork_map.core"), {}
    local text = project.read("lua/fork_map/core.d.lua")
      .. project.read("lua/fork_map/core_talk.d.lua")
    for name in text:gmatch("\nfunction core%.([%w_]+)") do
      described[name] = true
      assert.equal("function", type(core[name]), name)
    end
    for name, value in pairs(core) do
      assert.is_true(type(value) ~= "function" or described[name], name)
    end
  end)

  it("leads to files that are there", function()
    local pages = table.move(PAGES, 1, #PAGES, 3, { "CONTRIBUTING.md", "CHANGELOG.md" })
    for _, page in ipairs(pages) do
      local directory = page:match("^(.*/)") or ""
      for target in project.read(page):gmatch("%]%(([^)#]+)[^)]*%)") do
        if not target:find("^%a+:") then
          run("test -e " .. q(directory .. target))
        end
      end
      for script in project.read(page):gmatch("\n *sh ([%w/._]+)") do
        run("test -f " .. q(script))
      end
    end
  end)

  it("names tests that are there", function()
    local n = 0
    for row in project.read("docs/hazards.md"):gmatch("\n(|[^\n]*) |") do
      for file, name in row:gmatch("`([%w_]+)`: ([^;|]*[^;| ])") do
        local path, quoted
        if file:find("^test_") then
          path, quoted = "spec/c/" .. file .. ".c", "TEST(" .. name:gsub(" ", "_") .. ")"
        elseif file:find("_spec$") then
          path, quoted = "spec/" .. file .. ".lua", 'it("' .. name
        end
        if path then
          assert.is_truthy(project.read(path):find(quoted, 1, true), file .. ": " .. name)
          n = n + 1
        end
      end
    end
    assert.is_true(n > 80)
  end)

  it("carries the header's functions, each with a comment", function()
    local header = project.read("src/fork_map.h")
    for comment, name in header:gmatch("\n([^\n]*)\nFM_API[^;(]-([%w_]+)%(") do
      assert.is_truthy(comment:find("%*/$") or comment == "", name)
    end
  end)
end)
