-- SPDX-License-Identifier: MIT
-- What items of a map print, and that it is known which of them did.
local fork_map = require "fork_map"
local process = require "support.process"

local exit = os.exit

describe("what items print", function()
  process.guard(before_each, after_each, 2)

  it("comes line by line with the number of its item", function()
    local n, wrong = 0, {}
    fork_map.map(100, function(i)
      for _ = 1, i % 4 do
        print("item " .. i)
      end
      if i % 9 == 0 then
        io.stderr:write("item ", i, "\n")
      end
      if i % 25 == 0 then
        os.execute("echo item " .. i)
      end
    end, {
      workers = 2, output = function(line, _, index)
        n = n + 1
        if line ~= ("item %s"):format(index) then
          wrong[#wrong + 1] = ("%s said to be of %s"):format(line, index)
        end
      end,
    })
    assert.same({}, wrong)
    assert.equal(150 + 11 + 4, n)
  end)

  it("is kept on the error of its item, and is that item's alone", function()
    local _, errors = fork_map.map(30, function(i)
      print("out " .. i)
      io.stderr:write("err ", i)
      if i % 5 == 0 then
        error("five", 0)
      elseif i % 7 == 0 then
        exit(3)
      end
    end, { workers = 2, output = "capture", on_error = "collect" })
    for i = 1, 30 do
      if i % 5 == 0 or i % 7 == 0 then
        assert.equal("out " .. i .. "\n", errors[i].stdout)
        assert.equal("err " .. i, errors[i].stderr)
        errors[i] = nil
      end
    end
    assert.same({}, errors)
  end)

  it("may be more than a pipe holds", function()
    local bytes, wrong = 0, 0
    fork_map.map(6, function(i)
      for _ = 1, 2000 do
        print(("%d"):format(i):rep(99))
      end
    end, {
      workers = 2, output = function(line, _, index)
        bytes = bytes + #line + 1
        wrong = wrong + (line == tostring(index):rep(99) and 0 or 1)
      end,
    })
    assert.equal(6 * 2000 * 100, bytes)
    assert.equal(0, wrong)
  end)

  it("does not count as the time of an item that waits until it is read", function()
    local n = 0
    local results = fork_map.map(4, function(i)
      for _ = 1, 3000 do
        print(("x"):rep(99))
      end
      return i
    end, {
      workers = 2, timeout = 5, output = function()
        n = n + 1
      end,
    })
    assert.same({ 1, 2, 3, 4, n = 4 }, results)
    assert.equal(12000, n)
  end)

  it("is that of an item with a process of its own too", function()
    local _, errors = fork_map.map(6, function(i)
      print("out " .. i)
      if i % 2 == 0 then
        error("even", 0)
      end
    end, { workers = 2, isolate = "item", output = "capture", on_error = "collect" })
    assert.equal("out 4\n", errors[4].stdout)
  end)
end)
