-- SPDX-License-Identifier: MIT
-- The commonest words of some files.  Each worker counts those of the files that
-- it gets; only its counts cross, and are added up here.
--
--   lua5.4 examples/words.lua FILE...

local fork_map = require("fork_map")

assert(#arg > 0, "which files?")

local function count_words(counts, path)
  for line in io.lines(path) do
    for word in line:lower():gmatch("%a+") do
      counts[word] = (counts[word] or 0) + 1
    end
  end
  return counts
end

local function add(counts, more)
  for word, n in pairs(more) do
    counts[word] = (counts[word] or 0) + n
  end
  return counts
end

local paths = table.move(arg, 1, #arg, 1, {})
local counts, errors = fork_map.reduce(paths, count_words, add, {},
  { on_error = "collect", progress = true })

local words = {}
for word in pairs(counts) do
  words[#words + 1] = word
end
table.sort(words, function(a, b)
  return counts[a] > counts[b] or counts[a] == counts[b] and a < b
end)
for i = 1, math.min(10, #words) do
  print(("%8d  %s"):format(counts[words[i]], words[i]))
end
for i, err in pairs(errors or {}) do
  io.stderr:write(("%s was left out: %s\n"):format(paths[i], err.message))
end
os.exit(errors == nil, true)
