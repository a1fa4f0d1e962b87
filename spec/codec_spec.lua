-- SPDX-License-Identifier: MIT
local cjson = require "cjson"
local codecs = require "support.codecs"
local core = require "fork_map.core"
local memory = require "specs_memory"
local values = require "support.values"

local check, check_refused, check_malformed, cross =
  codecs.check, codecs.check_refused, codecs.check_malformed, codecs.cross

local OWN = { "json", "lua", "auto" }
local EXACT = { "lua", "auto" }
local JSON, LUA = 1, 2

describe("codec", function()
  before_each(function()
    math.randomseed(20240229)
  end)

  describe("values", function()
    it("carries booleans, strings and nothing at all by every codec", function()
      for _, codec in ipairs(OWN) do
        check(codec)
        check(codec, true, false, "", "text", "\0", "\n")
      end
    end)

    it("carries integers at every edge as integers", function()
      for _, codec in ipairs(OWN) do
        check(codec, table.unpack(values.integers))
        check(codec, values.integers)
        for _, integer in ipairs(values.integers) do
          check(codec, integer, { integer }, { x = integer })
        end
      end
    end)

    it("carries 200,000 random integers of all sizes", function()
      local list = {}
      for i = 1, 200000 do
        list[i] = math.random(0) >> math.random(0, 63)
        if i % 2 == 0 then
          list[i] = -list[i]
        end
      end
      for _, codec in ipairs(OWN) do
        check(codec, list)
      end
    end)

    it("carries floats at every edge as floats", function()
      for _, codec in ipairs(OWN) do
        check(codec, table.unpack(values.floats))
        check(codec, values.floats)
      end
    end)

    it("carries 200,000 doubles of random bits, NaN among them", function()
      local all, finite = values.random_doubles(200000)
      check("lua", all)
      check("auto", all)
      check("json", finite)
    end)

    it("carries subnormal doubles", function()
      local list = {}
      for i = 1, 20000 do
        local fraction = math.random(0) & 0xfffffffffffff
        list[i] = (string.unpack("<d", string.pack("<j", fraction | (i & 1) << 63)))
      end
      for _, codec in ipairs(OWN) do
        check(codec, list)
      end
    end)

    it("carries NaN with its payload and the infinities by lua and auto", function()
      for _, codec in ipairs(EXACT) do
        check(codec, table.unpack(values.not_finite))
        check(codec, values.not_finite)
      end
    end)

    it("carries lists that mix integers and floats of the same value", function()
      for _, codec in ipairs(OWN) do
        check(codec, { 1, 1.0, 2, 2.0, 3, 3.0, 4.0, 5.0, 6.0, 7.0, 8, 9, 10, 11, "x", 12, 13.5 })
      end
    end)

    it("carries strings of every byte by lua and auto", function()
      local bytes = {}
      for byte = 0, 255 do
        bytes[byte + 1] = string.char(byte)
      end
      for _, codec in ipairs(EXACT) do
        check(codec, table.concat(bytes), bytes)
      end
    end)

    it("carries UTF-8 of every length and every control character by json", function()
      local characters = {}
      for code = 0, 0x800 do
        characters[#characters + 1] = utf8.char(code)
      end
      for _, code in ipairs { 0xfff, 0x1000, 0xd7ff, 0xe000, 0xffff, 0x10000, 0x10ffff } do
        characters[#characters + 1] = utf8.char(code)
      end
      check("json", characters, table.concat(characters))
      assert.equal(JSON, select(2, core.encode("auto", characters)))
    end)

    it("carries strings of every length around those of its tags", function()
      local strings = {}
      for i = 0, 300 do
        strings[i + 1] = ("x"):rep(i)
      end
      strings[#strings + 1] = ("y"):rep(65536)
      for _, codec in ipairs(OWN) do
        check(codec, strings)
        check(codec, { [("k"):rep(39)] = 1, [("k"):rep(40)] = 2, [("k"):rep(41)] = 3 })
      end
    end)

    it("carries a string of 64 MB #slow", function()
      local text = ("0123456789abcde\n"):rep(4 << 20)
      for _, codec in ipairs(OWN) do
        assert.equal(text, cross(codec, text))
      end
      local bytes = ("\xff\0"):rep(32 << 20)
      assert.equal(bytes, cross("auto", bytes))
    end)

    it("carries several values with nils, before, between and after", function()
      for _, codec in ipairs(OWN) do
        check(codec, nil)
        check(codec, nil, nil)
        check(codec, nil, 1, nil, { 2 }, nil, "x", nil, nil)
      end
    end)

    it("carries 10,000 values", function()
      local list = {}
      for i = 1, 10000 do
        list[i] = i
      end
      for _, codec in ipairs(OWN) do
        check(codec, table.unpack(list))
      end
    end)

    it("carries null as fork_map.null, which is lua-cjson's", function()
      assert.equal(cjson.null, core.null)
      for _, codec in ipairs(OWN) do
        check(codec, core.null, { core.null, x = nil }, { x = core.null })
      end
      check("lua", { [core.null] = 1 })
    end)
  end)

  describe("tables", function()
    it("carries lists and tables with string keys by every codec", function()
      for _, codec in ipairs(OWN) do
        check(codec, {}, { 1 }, { {}, { {} } }, { a = { b = { c = {} } } }, { [""] = "" })
      end
    end)

    it("carries lists of every length around that of a run", function()
      for _, codec in ipairs(OWN) do
        for _, n in ipairs { 1, 2, 3, 4, 5, 63, 64, 65, 128, 129, 255, 256, 257, 512, 513 } do
          local integers, floats, strings, booleans = {}, {}, {}, {}
          for i = 1, n do
            integers[i], floats[i], strings[i], booleans[i] = i * 1000, i / 4, "s" .. i, i % 3 == 0
          end
          check(codec, integers, floats, strings, booleans)
        end
      end
    end)

    it("carries tables of every size around that of a batch", function()
      for _, codec in ipairs(OWN) do
        for n = 0, 70 do
          local object = {}
          for i = 1, n do
            object["k" .. i] = { i }
          end
          check(codec, object)
        end
      end
    end)

    it("carries a list that was filled backwards", function()
      local list = {}
      for i = 100, 1, -1 do
        list[i] = i
      end
      for _, codec in ipairs(OWN) do
        check(codec, list)
      end
      assert.equal(JSON, select(2, core.encode("auto", list)))
    end)

    it("carries holes by lua and auto", function()
      local sparse = { 1, nil, 3, nil, nil, 6 }
      local with_keys = { 1, nil, 3, x = 1, [2.5] = 2, [-1] = 3, [100] = 4 }
      for _, codec in ipairs(EXACT) do
        check(codec, sparse, { nil, nil, 3 }, with_keys, { [2] = 2 }, { [1 << 40] = 1 })
      end
    end)

    it("carries integer, float, boolean and table keys by lua and auto", function()
      for _, codec in ipairs(EXACT) do
        check(codec, { [0] = 0, [-1] = -1, [10] = 10, [128] = 1, [math.mininteger] = 2 })
        check(codec, { [1.5] = 1, [-0.25] = 2, [2.0 ^ 63] = 3, [math.huge] = 4, [-math.huge] = 5 })
        check(codec, { [true] = 1, [false] = 2, [1] = 3, ["1"] = 4, ["true"] = 5 })
        check(codec, { [{ 1, { 2 } }] = { 3 } })
        check(codec, { [{}] = {}, x = 1 })
        check(codec, { 1, 2, 3, [{ [{ 4 }] = 5 }] = { [{ 6 }] = 7 }, x = 8 })
      end
    end)

    it("keeps shared tables one by lua and auto", function()
      local shared = { 1 }
      for _, codec in ipairs(EXACT) do
        check(codec, { shared, shared, x = shared })
        check(codec, shared, { shared }, shared)
        check(codec, { [shared] = shared })
        local empty = {}
        check(codec, { empty, empty })
      end
    end)

    it("keeps cycles by lua and auto", function()
      for _, codec in ipairs(EXACT) do
        local loop = {}
        loop[1], loop.x, loop[loop] = loop, { up = loop }, loop
        local copy = cross(codec, loop)
        assert.equal(copy, copy[1])
        assert.equal(copy, copy.x.up)
        assert.equal(copy, copy[copy])
        local a, b = {}, {}
        a.b, b.a = b, a
        check(codec, a, b)
      end
    end)

    it("keeps references right among marked and empty tables", function()
      local last = { "last" }
      check("lua", { core.array(), {}, core.array(), last, {}, last })
    end)

    it("writes shared tables twice by json", function()
      local shared = { 1 }
      assert.equal("[[1],[1]]\n", (core.encode("json", { shared, shared })))
    end)

    it("carries tables 1,000 deep and refuses deeper ones with their path", function()
      for _, codec in ipairs(OWN) do
        check(codec, values.nested(100))
        check(codec, values.nested(1000))
        local text, path, why = core.encode(codec, values.nested(1001))
        assert.is_nil(text)
        assert.equal("result", path:sub(1, 6))
        assert.equal(500, select(2, path:gsub("%.a", "")))
        assert.equal(500, select(2, path:gsub("%[1%]", "")))
        assert.truthy(why:find("deeper than 1000", 1, true))
        local list = { {} }
        for _ = 3, 1001 do
          list = { list }
        end
        assert.is_nil((core.encode(codec, list)))
        assert.truthy(core.encode(codec, list[1]))
      end
    end)

    it("carries 5,000 random values with holes, odd keys and shared tables", function()
      for _ = 1, 5000 do
        local value = values.random(6)
        check("lua", value)
        check("auto", value)
      end
    end)

    it("calls no metamethod", function()
      local function fail()
        error("called")
      end
      local mt = { __index = fail, __newindex = fail, __len = fail, __pairs = fail, __eq = fail,
        __tostring = fail, __name = "x", __gc = nil, __metatable = false }
      for _, codec in ipairs(OWN) do
        local list = cross(codec, { setmetatable({ 1, 2 }, mt), setmetatable({ a = 1 }, mt),
          setmetatable({}, mt) })
        assert.same({ { 1, 2 }, { a = 1 }, {} }, list)
        assert.is_nil(getmetatable(list[1]))
      end
    end)

    it("marks lists so that they are [] when empty", function()
      assert.equal("{}\n", (core.encode("json", {})))
      assert.equal("[]\n", (core.encode("json", core.array())))
      assert.equal("[[],[1],{\"a\":2}]\n",
        (core.encode("json", { core.array {}, core.array { 1 }, core.array { a = 2 } })))
      for _, codec in ipairs(OWN) do
        check(codec, { core.array() })
        assert.equal("[]\n", (core.encode("json", (cross(codec, core.array())))))
        assert.equal("{}\n", (core.encode("json", (cross(codec, {})))))
      end
      local list = {}
      assert.equal(list, core.array(list))
      assert.has_error(function()
        core.array(setmetatable({}, {}))
      end)
    end)

    it("honours the marks of a lua-cjson that has them", function()
      local mark, list_mark = {}, {}
      local array = memory.light(16)
      local old = { cjson.empty_array_mt, cjson.array_mt, cjson.empty_array }
      cjson.empty_array_mt, cjson.array_mt, cjson.empty_array = mark, list_mark, array
      local value = { setmetatable({}, mark), setmetatable({}, list_mark), array, {} }
      local text = core.encode("json", value)
      local _, format = core.encode("auto", value)
      local last = {}
      local copy = cross("lua", { array, last, array, last })
      cjson.empty_array_mt, cjson.array_mt, cjson.empty_array = table.unpack(old, 1, 3)
      assert.equal("[[],[],[],{}]\n", text)
      assert.equal(JSON, format)
      assert.same({ {}, {}, {}, {} }, copy)
      assert.equal(copy[2], copy[4])
      check_refused("json", "result", "light userdata", array)
    end)
  end)

  describe("auto", function()
    it("is JSON where JSON is exact and lua where it is not", function()
      local function format(...)
        return (select(2, core.encode("auto", ...)))
      end
      local shared = {}
      assert.equal(JSON, format(1, { 1, 2.5, "x", { a = core.null } }, nil))
      assert.equal(LUA, format("\xff"))
      assert.equal(LUA, format { ["\xff"] = 1 })
      assert.equal(LUA, format(0 / 0))
      assert.equal(LUA, format { { math.huge } })
      assert.equal(LUA, format { 1, nil, 3 })
      assert.equal(LUA, format { 1, x = 2 })
      assert.equal(LUA, format { [2] = 2 })
      assert.equal(LUA, format { shared, shared })
      assert.equal(LUA, format(shared, shared))
    end)

    it("forgets what it wrote before it found the value unfit", function()
      local list = {}
      for i = 1, 20000 do
        list[i] = { i, tostring(i) }
      end
      list[#list + 1] = 0 / 0
      check("auto", list)
    end)
  end)

  describe("JSON text", function()
    it("is one line per value, an empty one for nil", function()
      assert.equal('1\n\n"a"\n[1,2]\n\n', (core.encode("json", 1, nil, "a", { 1, 2 }, nil)))
      assert.equal("", (core.encode("json")))
    end)

    it("keeps subtypes by the shape of the number", function()
      assert.equal("[1,1.0,-0.0,1e+300,0.1]\n",
        (core.encode("json", { 1, 1.0, -0.0, 1e300, 0.1 }):gsub("1e300", "1e+300")))
    end)

    it("of others is read too: blanks, escapes, exponents", function()
      local a, b = core.decode("json",
        ' { "a" : [ 1 , 2.50 , -3e2 ] } \n"\\u00e9\\ud83d\\ude00\\/"\n')
      values.assert_same({ a = { 1, 2.5, -300.0 } }, a)
      assert.equal("é😀/", b)
    end)

    it("with a key twice is refused, however big the object", function()
      for _, n in ipairs { 1, 2, 14, 15, 16, 17, 31, 32, 33, 63, 64, 65, 1000 } do
        for _, again in ipairs { 1, n } do
          local pairs_ = {}
          for i = 1, n do
            pairs_[i] = ('"k%d":%d'):format(i, i)
          end
          assert.has_no_error(function()
            core.decode("json", "{" .. table.concat(pairs_, ",") .. "}\n")
          end)
          pairs_[#pairs_ + 1] = ('"k%d":0'):format(again)
          check_malformed("json", "{" .. table.concat(pairs_, ",") .. "}\n", nil, "twice")
        end
      end
      check_malformed("json", '{"' .. ("x"):rep(100) .. '":1,"' .. ("x"):rep(100) .. '":1}\n')
      check_malformed("json", '{"":1,"":2}\n')
      check_malformed("json", '{"a\\u0062":1,"ab":2}\n')
    end)

    it("that is no JSON is refused", function()
      for _, text in ipairs { "1", "nul\n", "[1\n", "[1,]\n", "{1:2}\n", '{"a"}\n', "01\n", "+1\n",
        "1.\n", "0x10\n", "nan\n", "Infinity\n", "1e999\n", '"\xff"\n', '"\\ud800"\n', '"\1"\n',
        "[]]\n", "1 2\n", "'a'\n", "/**/1\n", "\0\n" } do
        check_malformed("json", text)
      end
    end)
  end)

  describe("refusal", function()
    it("names the value by its path", function()
      local fail = function() end
      for _, codec in ipairs(OWN) do
        check_refused(codec, "result", "function", fail)
        check_refused(codec, "result2", "function", 1, fail)
        check_refused(codec, "result3.a.b[3]", "function", nil, 2, { a = { b = { 1, 2, fail } } })
        check_refused(codec, 'result["a b"]["1"]', "coroutine",
          { ["a b"] = { ["1"] = coroutine.create(fail) } })
        check_refused(codec, "result[2][2].x", "userdata", { 1, { 2, { x = io.stdout } } })
        check_refused(codec, "result", "light userdata", memory.light(64))
        check_refused(codec, 'result["\\000\\"\\\\"]', "function", { ['\0"\\'] = fail })
        check_refused(codec, "result._x9.end", "function", { _x9 = { ["end"] = fail } })
      end
    end)

    it("names keys of every kind in paths", function()
      local fail = function() end
      check_refused("auto", "result[0]", "function", { [0] = fail })
      check_refused("auto", "result[-7].x", "function", { [-7] = { x = fail } })
      check_refused("auto", "result[1.5]", "function", { [1.5] = fail })
      check_refused("auto", "result[true]", "function", { [true] = fail })
      check_refused("auto", "result[table]", "function", { [{}] = fail })
      check_refused("auto", "result[function]", "function", { [fail] = 1 })
      check_refused("auto", "result[table][1]", "function", { [{ fail }] = 1 })
      check_refused("lua", "result[userdata]", "light userdata", { [memory.light(64)] = 1 })
      local long = ("k"):rep(1000)
      local _, path = core.encode("auto", { [long] = fail })
      assert.truthy(#path < 100)
    end)

    it("by json hints at the codec that can", function()
      local hint = 'codec = "lua"'
      check_refused("json", "result.a[1]", hint, { a = { 0 / 0 } })
      check_refused("json", "result[2]", hint, { 1, -math.huge })
      check_refused("json", "result", hint, "\xff")
      check_refused("json", 'result["\\255"]', hint, { ["\xff"] = 1 })
      check_refused("json", "result[2]", hint, { 1, nil, 3 })
      check_refused("json", "result.x", hint, { 1, 2, x = 3 })
      check_refused("json", "result[0]", hint, { [0] = 1 })
      check_refused("json", "result[1.5]", hint, { [1.5] = 1 })
      check_refused("json", "result[table]", hint, { [{}] = 1 })
      local why = check_refused("json", "result", "function", print)
      assert.is_nil(why:find(hint, 1, true))
    end)

    it("by json of a cycle names where it closes", function()
      local loop = {}
      loop.again = loop
      check_refused("json", "result.x.again", "cycle", { x = loop })
      local a, b = {}, { 1 }
      a.b, b[2] = b, { up = a }
      check_refused("json", "result.b[2].up", "cycle", a)
      for _, length in ipairs { 5, 15, 16, 17, 40, 64, 65, 300 } do
        local first = {}
        local last = first
        for _ = 2, length do
          last.n = {}
          last = last.n
        end
        last.n = first
        check_refused("json", "result.x.x" .. (".n"):rep(length), "cycle", { x = { x = first } })
      end
    end)
  end)

  describe("locale", function()
    it("with a decimal comma changes nothing", function()
      local old = os.setlocale()
      assert.truthy(os.setlocale("de_DE.UTF-8") or os.setlocale("de_DE.utf8"),
        "no locale de_DE.UTF-8: see LOCPATH in spec/run")
      finally(function()
        os.setlocale(old)
      end)
      assert.equal("1,5", ("%.1f"):format(1.5))
      assert.equal("[1.5,2]\n", (core.encode("json", { 1.5, 2 })))
      values.assert_same({ 1.5, -2.25e-10 }, core.decode("json", "[1.5,-2.25e-10]\n"))
      check_malformed("json", "[1,5 2,5]\n")
      for _, codec in ipairs(OWN) do
        check(codec, values.floats, values.integers)
        for _ = 1, 2000 do
          local double = values.random_double()
          check(codec, double - double == 0 and double or 0.5)
        end
      end
      check_refused("json", "result[1.5]", "key", { [1.5] = 1 })
    end)
  end)

  describe("option", function()
    it("that is no codec is named in the error", function()
      for _, codec in ipairs { "xml", 5, true, print, {}, { encode = print }, { decode = print },
        { encode = 1, decode = 2 }, "pair" } do
        local ok, message = pcall(core.encode, codec, 1)
        assert.is_false(ok)
        assert.truthy(message:find("option 'codec'", 1, true), message)
      end
    end)

    it("that is nil means auto", function()
      assert.equal("1\n", (core.encode(nil, 1)))
    end)
  end)

  describe("format", function()
    it("of another codec is refused", function()
      check_malformed(3, "1\n", nil, "not expected")
      check_malformed(4, "", nil, "not expected")
      check_malformed(0, "", nil, "not expected")
      check_malformed(99, "", nil, "not expected")
    end)
  end)
end)
