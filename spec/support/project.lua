-- SPDX-License-Identifier: MIT
-- For specs that build, install and run things outside of this process.

local project = {}

---The project's root; specs run there.
project.root = assert(io.popen("pwd -P")):read("l")

---One shell word.
function project.quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

---The interpreter that can load the module of this build: a sanitizer's runtime
---has to be there before it.
project.lua = ("LD_PRELOAD=%s lua5.4"):format(project.quote(os.getenv("FORK_MAP_PRELOAD") or ""))

---Run a shell command; returns its output, raises when it fails.
function project.run(command)
  local pipe = assert(io.popen("exec 2>&1 </dev/null\nunset LD_PRELOAD\n" .. command))
  local output = pipe:read("a")
  local ok, how, code = pipe:close()
  if not ok then
    error(("%s %d of: %s\n%s"):format(how, code, command, output), 2)
  end
  return output
end

---A new directory, to be given to remove().
function project.make_directory()
  return (project.run("mktemp -d"):gsub("\n$", ""))
end

function project.remove(directory)
  project.run("rm -rf " .. project.quote(directory))
end

---All files of the project that are part of it, without what was built.
function project.copy_to(directory)
  project.run(("tar -cf - --exclude=./build --exclude=./.git . | tar -xf - -C %s"):format(
    project.quote(directory)))
end

function project.read(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read("a")
end

function project.write(path, text)
  local file <close> = assert(io.open(path, "wb"))
  assert(file:write(text))
end

---Configure and build with CMake; `options` are words of a command line.
function project.cmake(source, build, options)
  return project.run(("cmake -S %s -B %s %s && cmake --build %s --parallel 2"):format(
    project.quote(source), project.quote(build), options or "", project.quote(build)))
end

return project
