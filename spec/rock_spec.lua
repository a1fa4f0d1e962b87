-- SPDX-License-Identifier: MIT

local project = require("support.project")
local q, run = project.quote, project.run

local ROCKSPEC = "rockspec/fork_map-scm-1.rockspec"
local LUAROCKS = "luarocks --lua-version=5.4 "

-- What CMake may choose instead where a facility of Linux is missing.
local FALLBACKS = {
  ["src/os/poller_poll.c"] = true,
  ["src/os/bell_pipe.c"] = true,
  ["src/os/word_sleep.c"] = true,
  ["src/os/fence_none.c"] = true,
  ["src/os/pid_waitpid.c"] = true,
  ["src/os/bury_close.c"] = true,
  ["src/os/exec_none.c"] = true,
  ["src/os/sibling_none.c"] = true,
}

local CALL = [[
local fork_map = require("fork_map")
print(fork_map(function(...) return select("#", ...), ... end, 1, nil, "x"))
print(select(2, pcall(fork_map, os.exit, 7)).exit_code)
]]

---What a program prints that has the rocks of `tree` and nothing else.
local function run_with_tree(tree, directory)
  project.write(directory .. "/call.lua", CALL)
  return run(("cd %s && LUA_PATH=%s LUA_CPATH=%s lua5.4 call.lua"):format(q(directory),
    q(tree .. "/share/lua/5.4/?.lua"), q(tree .. "/lib/lua/5.4/?.so")))
end

local function load_rockspec()
  local env = {}
  assert(loadfile(ROCKSPEC, "t", env))()
  return env
end

describe("the rockspec", function()
  it("compiles the sources that CMake compiles on Linux", function()
    local listed = {}
    for _, source in ipairs(load_rockspec().build.modules["fork_map.core"].sources) do
      listed[source] = true
    end
    for source in run("find src -name '*.c' ! -path 'src/program/*'"):gmatch("[^\n]+") do
      assert.equal(not FALLBACKS[source], listed[source] or false, source)
      listed[source] = nil
    end
    assert.same({}, listed)
  end)

  it("installs every Lua file", function()
    local listed = {}
    for _, module in pairs(load_rockspec().build.modules) do
      if type(module) == "string" then
        listed[module] = true
      end
    end
    for file in run("find lua -name '*.lua' ! -name '*.d.lua'"):gmatch("[^\n]+") do
      assert.is_true(listed[file], file)
      listed[file] = nil
    end
    assert.same({}, listed)
  end)
end)

describe("the rock #package", function()
  local dir, source

  setup(function()
    dir = project.make_directory()
    source = dir .. "/source"
    run("mkdir " .. q(source))
    project.copy_to(source)
  end)

  teardown(function()
    project.remove(dir)
  end)

  it("is made and installed by luarocks make", function()
    run(("cd %s && %s make --tree=%s %s"):format(q(source), LUAROCKS, q(dir .. "/made"), ROCKSPEC))
    assert.equal("3\t1\tnil\tx\n7\n", run_with_tree(dir .. "/made", dir))
  end)

  ---Serve the rock that `pack` leaves in the server's directory.
  local function install_from_server(name, pack)
    local server, tree = dir .. "/" .. name, dir .. "/" .. name .. "-tree"
    run("mkdir " .. q(server))
    pack(server)
    run(("luarocks-admin --lua-version=5.4 make_manifest %s"):format(q(server)))
    run(("cd / && %s install --only-server=%s --tree=%s fork_map scm-1"):format(
      LUAROCKS, q("file://" .. server), q(tree)))
    assert.equal("3\t1\tnil\tx\n7\n", run_with_tree(tree, dir))
  end

  it("installs as a binary rock from a server into an empty tree", function()
    install_from_server("binary", function(server)
      run(("cd %s && %s make --pack-binary-rock %s && mv *.rock %s"):format(
        q(source), LUAROCKS, ROCKSPEC, q(server)))
    end)
  end)

  it("installs as a source rock from a server into an empty tree", function()
    install_from_server("sources", function(server)
      -- A source rock holds what its rockspec's url leads to: here, a repository.
      local text = project.read(ROCKSPEC):gsub('url = "[^"]*"',
        ("url = %q"):format("git+file://" .. source))
      project.write(server .. "/fork_map-scm-1.rockspec", text)
      run(("cd %s && git init -q && git add . && "
        .. "git -c user.name=spec -c user.email=spec@localhost commit -q -m source"):format(
          q(source)))
      run(("cd %s && %s pack fork_map-scm-1.rockspec && rm fork_map-scm-1.rockspec"):format(
        q(server), LUAROCKS))
    end)
  end)
end)
