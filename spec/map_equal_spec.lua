-- SPDX-License-Identifier: MIT
-- A map is the same map whoever works on it: values, order, errors and random
-- numbers for any number of workers, any chunk and any codec.

local fork_map = require "fork_map"
local process = require "support.process"
local values = require "support.values"

-- Rounds of each property; more with FORK_MAP_FULL=1.
local ROUNDS = os.getenv("FORK_MAP_FULL") == "1" and 500 or 15

local CODECS = { "auto", "lua", "json", {
  encode = function(packed) return string.format("%q", packed[1]) end,
  decode = function(text) return { n = 1, load("return " .. text)() } end,
} }

local CHUNKS = { "auto", 1, 2, 7, 1000, { min = 2, max = 9 }, { min = 16 }, { max = 3 } }

-- What items may do.  Each is given to all of the workers there are.
local FUNCTIONS = {
  function(item) return item end,
  function(_, index) return index * 0.25 end,
  function(item, index) if index % 3 == 0 then error({ index, item }) end return index end,
  function(_, index) if index % 5 == 2 then error("no " .. index, 0) end end,
  function() return math.random(1 << 40), math.random() end,
  function() return math.random() end,
  function(_, index) if index % 4 == 1 then return print end return ("x"):rep(index) end,
  function(_, index)
    if index % 2 == 0 and fork_map.worker().attempt < 3 then
      error("again", 0)
    end
    return fork_map.worker().attempt
  end,
  function(_, index) return fork_map.worker().index == index end,
  function(_, index) return index % 2 == 0 and "even" or nil end,
}

-- What an error tells that does not depend on the process.
local function essence(err)
  return {
    kind = err.kind, message = err.message, index = err.index, attempt = err.attempt,
    path = err.path, limit = err.limit, value = err.value, name = err.name,
  }
end

local function essences(errors)
  local all = {}
  for index, err in pairs(errors or {}) do
    all[index] = essence(err)
  end
  return all
end

local function random_list()
  local list = { n = math.random(0, 60) }
  for i = 1, list.n do
    local pick = math.random(6)
    if pick == 1 then
      list[i] = math.random(-1000, 1000)
    elseif pick == 2 then
      list[i] = ("s"):rep(math.random(0, 20)) .. i
    elseif pick == 3 then
      list[i] = math.random(2) == 1
    elseif pick == 4 then
      list[i] = { i, { a = i } }
    elseif pick == 5 then
      list[i] = i + 0.5
    end
  end
  if math.random(4) == 1 then
    return list.n
  end
  return list
end

local function random_opts()
  return {
    codec = CODECS[math.random(#CODECS)], on_error = "collect", seed = math.random(1 << 30),
    retries = 2, retry_on = { "error" }, name = math.random(2) == 1 and "equal" or nil,
  }
end

local ISOLATIONS = { "worker", "worker", "chunk", "item" }

local function with_workers(opts, workers)
  local all = {
    workers = workers, chunk = CHUNKS[math.random(#CHUNKS)],
    isolate = workers > 0 and ISOLATIONS[math.random(#ISOLATIONS)] or nil,
  }
  for name, value in pairs(opts) do
    all[name] = value
  end
  return all
end

-- Call `check(list, fn, opts)` with many of each.
local function for_all(check)
  for round = 1, ROUNDS do
    check(random_list(), FUNCTIONS[(round - 1) % #FUNCTIONS + 1], random_opts())
  end
end

describe("a map with any number of workers, any chunk, isolation and codec", function()
  process.guard(before_each, after_each, 8)

  it("has the same values, order, errors and random numbers", function()
    for_all(function(list, fn, opts)
      local expected, expected_errors = fork_map.map(list, fn, with_workers(opts, 0))
      for _, workers in ipairs { 1, 2, 8 } do
        local results, errors = fork_map.map(list, fn, with_workers(opts, workers))
        values.assert_same(expected, results)
        values.assert_same(essences(expected_errors), essences(errors))
      end
    end)
  end)

  it("hands out the same one by one", function()
    for_all(function(list, fn, opts)
      local expected, expected_errors = fork_map.map(list, fn, with_workers(opts, 0))
      for _, workers in ipairs { 0, 2 } do
        for _, verb in ipairs { "imap", "imap_unordered" } do
          local results, errors, last = { n = 0 }, {}, 0
          for i, value, err in fork_map[verb](list, fn, with_workers(opts, workers)) do
            assert.is_true(verb ~= "imap" or i == last + 1)
            results[i], errors[i], last = value, err, i
            results.n = results.n + 1
          end
          values.assert_same(expected, results)
          values.assert_same(essences(expected_errors), essences(errors))
        end
      end
    end)
  end)

  it("folds and finds the same", function()
    for round = 1, ROUNDS // 3 do
      local n = math.random(0, 300)
      local wanted = math.random(1, 400)
      local expected, found
      for _, workers in ipairs { 0, 1, 2, 8 } do
        local opts = with_workers({ seed = round, which = "first" }, workers)
        local text = fork_map.reduce(n, function(acc, i)
          return acc .. (i % 10)
        end, function(a, b) return a .. b end, "", opts)
        local sum = fork_map.reduce(n, function(acc, i) return acc + 1 / i end,
          function(a, b) return a + b end, 0.0, opts)
        local index = fork_map.find(n, function(i) return i >= wanted end, opts)
        local all = { text, sum, index or "none" }
        expected = expected or all
        values.assert_same(expected, all)
        found = found or index
      end
      assert.equal(n, #expected[1])
      assert.equal(wanted <= n and wanted or nil, found)
    end
  end)

  it("raises the same kind of error for one item that fails", function()
    for _, fn in ipairs {
      function(i) if i == 7 then error("no", 0) end end,
      function(i) if i == 7 then return print end end,
      function(i) if i == 7 then error({ 7 }) end end,
    } do
      local expected
      for _, workers in ipairs { 0, 1, 2, 8 } do
        local err = process.failure(fork_map.map, 20, fn, with_workers({}, workers))
        expected = expected or essence(err)
        values.assert_same(expected, essence(err))
        assert.equal(20, err.partial.n)
      end
    end
  end)
end)
