-- SPDX-License-Identifier: MIT
-- spec/mutants.sh takes its time; here only that its list is of this code.

local mutants = require "support.mutants"
local project = require "support.project"

-- How often `text` contains `part`.
local function count(text, part)
  local n, at, last = 0, text:find(part, 1, true)
  while at do
    n = n + 1
    at, last = text:find(part, last + 1, true)
  end
  return n
end

describe("every mutant", function()
  it("changes a place that is there, once", function()
    for _, mutant in ipairs(mutants) do
      for _, edit in ipairs(mutant.edits) do
        assert.equal(1, count(project.read(edit[1]), edit[2]), mutant.name)
      end
    end
  end)

  it("has tests that are there", function()
    for _, mutant in ipairs(mutants) do
      assert.is_true(#mutant.tests > 0)
      for _, test in ipairs(mutant.tests) do
        local file, name = test:match("^(test_%S+) (.+)$")
        if file then
          local text = project.read("spec/c/" .. file .. ".c")
          assert.equal(1, count(text, "TEST(" .. name .. ")"), mutant.name)
        end
      end
    end
  end)

  it("is in the table of docs/reliability.md", function()
    local page = project.read("docs/reliability.md")
    for _, mutant in ipairs(mutants) do
      assert.equal(1, count(page, "\n| " .. mutant.name .. " |"), mutant.name)
    end
  end)
end)
