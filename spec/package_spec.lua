-- SPDX-License-Identifier: MIT

local project = require("support.project")
local q, run = project.quote, project.run

-- The order in which jobs settle is theirs.
local function sorted_lines(text)
  local lines = {}
  for line in text:gmatch("[^\n]+") do
    lines[#lines + 1] = line
  end
  table.sort(lines)
  return table.concat(lines, "\n")
end

local PRIMES = table.concat({
  "below 100000: 9592 primes",
  "below 200000: 8392 primes",
  "the crash: signal, the child was ended by signal 11 (SIGSEGV)",
}, "\n")

describe("an installed fork_map #package", function()
  local dir, prefix

  setup(function()
    dir = project.make_directory()
    project.cmake(project.root, dir .. "/build", "-DCMAKE_BUILD_TYPE=Release")
    run(("cmake --install %s --prefix %s"):format(q(dir .. "/build"), q(dir .. "/first")))
    -- Whatever was written into it must hold elsewhere too.
    prefix = dir .. "/moved here"
    run(("mv %s %s"):format(q(dir .. "/first"), q(prefix)))
  end)

  teardown(function()
    project.remove(dir)
  end)

  it("is found by find_package() of a host without Lua", function()
    local build = dir .. "/embed_find_package"
    project.cmake("examples/embed_find_package", build, "-DCMAKE_PREFIX_PATH=" .. q(prefix))
    assert.equal(PRIMES, sorted_lines(run(q(build .. "/host"))))
  end)

  it("is linked statically, module included, by a host with Lua", function()
    local build = dir .. "/embed_static"
    project.cmake("examples/embed_static", build, "-DCMAKE_PREFIX_PATH=" .. q(prefix))
    assert.equal("sum\t500500\nexit\tfalse\texit\t3\n",
      run(("%s examples/embed_static/script.lua %s"):format(
        q(build .. "/host"), q(prefix .. "/share/lua/5.4"))))
  end)

  it("forks off the early copy of a host that has threads", function()
    local build = dir .. "/early_host"
    project.cmake("examples/early_host", build, "-DCMAKE_PREFIX_PATH=" .. q(prefix))
    assert.equal("threads\t4\ndirect\tfalse\tspawn\ntemplate\t42 43 44\n",
      run(("timeout 60 %s examples/early_host/script.lua %s"):format(
        q(build .. "/host"), q(prefix .. "/share/lua/5.4"))))
  end)

  it("is linked by what pkg-config says", function()
    local source = project.root .. "/examples/embed_find_package/main.c"
    for _, how in ipairs { "", "--static" } do
      local host = dir .. "/pkg-config-host"
      run(("PKG_CONFIG_PATH=%s; export PKG_CONFIG_PATH; "
        .. "eval cc %s -o %s $(pkg-config --cflags --libs %s fork_map) %s"):format(
          q(prefix .. "/lib/pkgconfig"), q(source), q(host), how,
          how == "--static" and "-Wl,-Bstatic -lfork_map -Wl,-Bdynamic" or ""))
      assert.equal(PRIMES, sorted_lines(run(("LD_LIBRARY_PATH=%s %s"):format(
        q(prefix .. "/lib"), q(host)))))
    end
  end)

  it("is a Lua module", function()
    assert.equal("a\tnil\n", run(("LUA_PATH=%s LUA_CPATH=%s lua5.4 -e %s"):format(
      q(prefix .. "/share/lua/5.4/?.lua"), q(prefix .. "/lib/lua/5.4/?.so"),
      q('print(require("fork_map")(function() return "a", nil end))'))))
  end)

  it("exports the functions of its header and nothing else", function()
    local declared, exported = {}, {}
    local header = project.read("src/fork_map.h"):gsub("/%*.-%*/", ""):gsub("#[^\n]*", "")
    for name in header:gmatch("FM_API[^;(]-([%w_]+)%(") do
      declared[#declared + 1] = name
    end
    local symbols = run(("nm -D --defined-only %s"):format(q(prefix .. "/lib/libfork_map.so")))
    for name in symbols:gmatch("%x+ %u ([%w_]+)") do
      exported[#exported + 1] = name
    end
    table.sort(declared)
    table.sort(exported)
    assert.same(declared, exported)
    assert.equal("luaopen_fork_map_core", run(("nm -D --defined-only %s"):format(
      q(prefix .. "/lib/lua/5.4/fork_map/core.so"))):match("^%x+ T ([%w_]+)\n$"))
  end)
end)

describe("the build #package", function()
  local dir

  before_each(function()
    dir = project.make_directory()
  end)

  after_each(function()
    project.remove(dir)
  end)

  it("needs no Lua when only the core is wanted", function()
    project.cmake(project.root, dir,
      "-DFORK_MAP_LUA=OFF -DCMAKE_DISABLE_FIND_PACKAGE_Lua=ON -DLUA_INCLUDE_DIR=/nonexistent")
    run(("cd %s && test -e src/libfork_map.so && test -e src/libfork_map.a && test ! -e lua")
      :format(q(dir)))
  end)

  it("is part of a host's own build", function()
    run(("mkdir %s/host"):format(q(dir)))
    project.write(dir .. "/host/CMakeLists.txt", ([[
      cmake_minimum_required(VERSION 3.21)
      project(host LANGUAGES C)
      add_subdirectory("%s" fork_map)
      add_executable(host "%s/examples/embed_find_package/main.c")
      target_link_libraries(host PRIVATE fork_map::fork_map_static)
    ]]):format(project.root, project.root))
    project.cmake(dir .. "/host", dir .. "/build", "-DFORK_MAP_LUA=OFF")
    assert.equal(PRIMES, sorted_lines(run(q(dir .. "/build/host"))))
  end)
end)
