-- SPDX-License-Identifier: MIT
local codecs = require "support.codecs"
local core = require "fork_map.core"
local cjson = require "cjson"
local values = require "support.values"

local check_refused, check_malformed = codecs.check_refused, codecs.check_malformed

describe("codec of others:", function()
  before_each(function()
    math.randomseed(20240229)
  end)

  describe("lua-cjson", function()
    it("reads what json writes, 100,000 random values", function()
      for i = 1, 100000 do
        local value = values.random_cjson(core.null, 3)
        local text = core.encode("json", value)
        local is_same, where = values.same(values.with_integers(value),
          values.with_integers(cjson.decode(text)))
        assert(is_same, ("value %d differs at %s: %s"):format(i, where or "", text))
      end
    end)

    it("writes what json reads, 100,000 random values", function()
      for i = 1, 100000 do
        local value = values.random_cjson(core.null, 3)
        local text = cjson.encode(value)
        local is_same, where = values.same(values.with_integers(value),
          values.with_integers(core.decode("json", text .. "\n")))
        assert(is_same, ("value %d differs at %s: %s"):format(i, where or "", text))
      end
    end)

    it("as a codec carries what it carries, by its own rules", function()
      values.assert_same(table.pack(cjson.decode(cjson.encode { a = { 1, "x", true } }), nil, "é"),
        table.pack(core.decode("cjson",
          (core.encode("cjson", { a = { 1, "x", true } }, nil, "é")))))
      assert.equal(0, select("#", core.decode("cjson", (core.encode "cjson"))))
      assert.equal('{"a":[]}\n', (core.encode("cjson", { a = {} }):gsub("{}", "[]")))
    end)

    it("as a codec refuses with its own words", function()
      check_refused("cjson", "result2", "function", 1, { print })
      check_refused("cjson", "result", "sparse", { [1000] = 1 })
      check_malformed("cjson", "[1,\n")
      check_malformed("cjson", "[1]", nil, "cut short")
      check_malformed("cjson", ("["):rep(2000) .. ("]"):rep(2000) .. "\n", "^limit: ", "deep")
    end)

    it("that is not there is named in the error", function()
      local loaded, preload = package.loaded.cjson, package.preload.cjson
      package.loaded.cjson = nil
      package.preload.cjson = function()
        error("not here")
      end
      local ok, message = pcall(core.encode, "cjson", 1)
      package.loaded.cjson, package.preload.cjson = loaded, preload
      assert.is_false(ok)
      assert.truthy(message:find("option 'codec': lua-cjson is not installed", 1, true), message)
    end)
  end)

  describe("pair", function()
    it("gets the packed values and gives them back", function()
      local got
      local pair = {
        encode = function(packed)
          got = packed
          return "text"
        end,
        decode = function(text)
          return { n = 4, text, nil, 3 }
        end,
      }
      local text, format = core.encode(pair, 1, nil, nil)
      assert.equal("text", text)
      assert.equal(4, format)
      values.assert_same({ 1, n = 3 }, got)
      values.assert_same({ "text", nil, 3, n = 4 }, table.pack(core.decode(pair, "text")))
      assert.equal(0, select("#", core.decode({ encode = print, decode = function()
        return { n = 0.0 }
      end }, "")))
    end)

    it("refuses with the words of its functions", function()
      local pair = { encode = function() error("no good", 0) end,
        decode = function() error("no better", 0) end }
      check_refused(pair, "result", "no good", 1)
      check_malformed(pair, "", "^protocol: ", "no better")
    end)

    it("raises again what is no string", function()
      local thing = {}
      local function fail()
        error(thing)
      end
      local pair = { encode = fail, decode = fail }
      assert.equal(thing, select(2, pcall(core.encode, pair, 1)))
      assert.equal(thing, select(2, pcall(core.decode, pair, "")))
    end)

    it("that returns nonsense is refused", function()
      check_refused({ encode = function() return 5 end, decode = print }, "result", "no string", 1)
      check_refused({ encode = function() end, decode = print }, "result", "no string", 1)
      for _, nonsense in ipairs { 1, "x", {}, { n = -1 }, { n = "x" }, { n = 1.5 },
        { n = 1 << 40 } } do
        check_malformed({ encode = print, decode = function()
          return nonsense
        end }, "")
      end
    end)
  end)
end)
