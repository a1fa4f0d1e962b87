-- SPDX-License-Identifier: MIT
-- Places in RESULTS.md that programs fill in.

local M = {}

local PAGE = "bench/RESULTS.md"

function M.read(name)
  local file <close> = assert(io.open(name))
  return file:read("a")
end

function M.write(name, text)
  local file <close> = assert(io.open(name, "w"))
  assert(file:write(text))
end

---Put `text` where the page has "<!-- NAME -->", up to "<!-- end -->".
function M.fill(name, text)
  local page = M.read(PAGE)
  local _, from = page:find(("<!-- %s -->\n"):format(name), 1, true)
  local to = from and page:find("<!-- end -->", from, true)
  assert(to, ("%s has no place for %s"):format(PAGE, name))
  M.write(PAGE, ("%s\n%s\n\n%s"):format(page:sub(1, from), text, page:sub(to)))
end

return M
