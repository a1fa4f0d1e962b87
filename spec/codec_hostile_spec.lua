-- SPDX-License-Identifier: MIT
local codecs = require "support.codecs"
local core = require "fork_map.core"
local memory = require "specs_memory"

local check_malformed = codecs.check_malformed

local OWN = { "json", "lua", "auto" }

describe("codec under attack:", function()
  before_each(function()
    math.randomseed(20240229)
  end)

  describe("hostile bytes", function()
    ---Values that use every tag of the binary codec.
    local function sample()
      local shared = { a = 1 }
      return { 1, -5, 200, -40000, 1 << 40, 0.5, "x", ("y"):rep(70), true, false, core.null, nil,
        {}, core.array(), { 1, 2, 3, 4, 5 }, { 1000, 2000, 3000, 4000 }, { 1 << 20, 2, 3, 4 },
        { 1 << 40, 2, 3, 4 }, { 0.5, 1.5, 2.5, 3.5 }, shared, shared, { [shared] = 2, [0.5] = 3,
        [true] = 4, [-1] = 5, [300] = 6, [("z"):rep(50)] = 7 }, { a = 2, b = { a = 3 } } }
    end

    ---Any outcome but a crash, a hang or a strange error.
    local function try(format, text)
      local ok, message = pcall(core.decode, format, text, 1 << 20)
      if not ok and not (message:find("^protocol: ") or message:find("^limit: ")) then
        error(message)
      end
      return ok
    end

    it("cut short anywhere are refused", function()
      local text = core.encode("lua", sample(), nil, 1)
      for n = 0, #text - 1 do
        assert.is_false(try("lua", text:sub(1, n)))
        assert.is_false(try("lua", text:sub(n + 2)))
      end
      local value = sample()
      value = { a = value[1], b = { value[15], value[19] }, c = "x\u{20ac}\n", d = { {}, {} } }
      text = core.encode("json", value, { 1.5, false })
      for n = 1, #text - 1 do
        if text:sub(n, n) ~= "\n" then
          assert.is_false(try("json", text:sub(1, n)))
        end
      end
    end)

    it("changed anywhere do no harm", function()
      for _, codec in ipairs { "lua", "json" } do
        local value = codec == "lua" and sample()
          or { a = { 1, 2.5, "x\n", true }, b = { {}, { c = 1 } } }
        local text = core.encode(codec, value)
        for at = 1, #text do
          for _ = 1, 40 do
            try(codec, text:sub(1, at - 1) .. string.char(math.random(0, 255)) .. text:sub(at + 1))
          end
          try(codec, text:sub(1, at - 1) .. text:sub(at + 1))
          try(codec, text:sub(1, at) .. text:sub(at))
        end
      end
    end)

    it("at random do no harm", function()
      for _ = 1, 20000 do
        local bytes = { "\1\1" }
        for i = 2, math.random(2, 40) do
          bytes[i] = string.char(math.random(3) == 1 and math.random(0, 255)
            or math.random(0xc0, 0xd3))
        end
        bytes[#bytes + 1] = string.char(math.random(0, 3))
        try("lua", table.concat(bytes))
      end
    end)

    it("with counts beyond the text are refused before memory is taken", function()
      local varint = { "\xff\xff\xff\xff\x07", "\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00" }
      for _, count in ipairs(varint) do
        for _, tag in ipairs { "\xc9", "\xca", "\xcb", "\xcc", "\xca\4\xcd", "\xca\4\xd0",
          "\xca\4\xd3", "\xcb\1\x40", "\xca\1\1", "" } do
          collectgarbage()
          local before = collectgarbage("count")
          check_malformed("lua", "\1\1" .. tag .. count .. ("\0"):rep(20))
          assert.truthy(collectgarbage("count") - before < 64)
        end
      end
      -- Every level promises what only one could keep.
      local text = "\1\1"
      for _ = 1, 500 do
        text = text .. "\xca\xd0\x0f" -- 2000 items
      end
      check_malformed("lua", text .. ("\0"):rep(2100))
    end)

    it("with keys that are none are refused", function()
      local function of(pair)
        return "\1\1\xcb\1" .. pair .. "\0"
      end
      check_malformed("lua", of("\xc0\1"), nil, "nil as a key")
      check_malformed("lua", of("\x41\1a\xc0"), nil, "nil as the value")
      check_malformed("lua", of("\xc8" .. string.pack("<d", 0 / 0) .. "\1"), nil, "float")
      check_malformed("lua", of("\xc8" .. string.pack("<d", 2.0) .. "\1"), nil, "float")
      check_malformed("lua", of("\xc8" .. string.pack("<d", -0.0) .. "\1"), nil, "float")
      check_malformed("lua", of("\5\1"), nil, "unannounced key")
      check_malformed("lua", "\1\1\xcb\1\5\1\2", nil, "slot without a key")
      check_malformed("lua", "\1\1\xca\2\1\1\1\xc4\2\7\0", nil, "item of the list")
      check_malformed("lua", "\1\1\xcb\2\x41\1a\1\x42\1a\2\0", nil, "twice")
      check_malformed("lua", "\1\1\xcb\2\x41\1a\1\x81a\2\0", nil, "twice")
      check_malformed("lua", "\1\1\xcb\2\xc4\5\1\xc5\5\0\2\0", nil, "twice")
      check_malformed("lua", "\1\1\xcb\2\xc1\1\xc1\2\0", nil, "twice")
      check_malformed("lua", "\1\1\xcb\2\xce\1\xcc\1\2\1", nil, "twice")
    end)

    it("with references to nowhere are refused", function()
      check_malformed("lua", "\1\1\xcc\0\1", nil, "no table")
      check_malformed("lua", "\1\1\xca\1\xcc\1\0\1", nil, "no table")
      check_malformed("lua", "\1\1\xca\1\xcc\0\0\0", nil, "unannounced")
      local loop = core.decode("lua", "\1\1\xca\1\xcc\0\0\1")
      assert.equal(loop, loop[1])
    end)

    it("of another version, with unknown flags or with more behind are refused", function()
      check_malformed("lua", "\2\1\5\0", nil, "version")
      check_malformed("lua", "\1\1\5\4", nil, "flags")
      check_malformed("lua", "\1\1\5\5\0", nil, "after the last value")
      check_malformed("lua", "\1\1\xde\0", nil, "unknown tag")
      assert.equal(5, core.decode("lua", "\1\1\5\0"))
    end)

    it("nested deeper than 1,000 are refused", function()
      check_malformed("lua", "\1\1" .. ("\xca\1"):rep(1001) .. ("\0"):rep(1003), "^limit: ", "deep")
      check_malformed("json", ("["):rep(1001) .. ("]"):rep(1001) .. "\n", "^limit: ", "deep")
      check_malformed("json", ('{"a":'):rep(100000) .. "\n", "^limit: ", "deep")
    end)

    it("that would take more memory than the budget are refused on the way", function()
      local bombs = {
        json = { "[" .. ("[],"):rep(400000) .. "1]\n", "[" .. ('{"a":{}},'):rep(100000) .. "1]\n",
          "[" .. ("1,"):rep(500000) .. "1]\n", '["' .. ("x"):rep(2 << 20) .. '"]\n' },
        lua = { "\1\1\xca\x80\x89\x7a" .. ("\xce"):rep(2000000) .. "\0\0",
          "\1\1\xca\x80\x89\x7a" .. ("\xc0"):rep(2000000) .. "\0\0",
          "\1\1\xc9\x80\x80\x80\1" .. ("x"):rep(1 << 21) .. "\0" },
        cjson = { "[" .. ("[],"):rep(400000) .. "1]\n" },
      }
      for codec, texts in pairs(bombs) do
        for _, text in ipairs(texts) do
          collectgarbage()
          local before = collectgarbage("count")
          local ok, message = pcall(core.decode, codec, text, 1 << 20)
          local peak = collectgarbage("count") - before
          assert.is_false(ok)
          assert.truthy(message:find("^limit: .*memory"), message)
          assert.truthy(peak < 2048 + #text // 1024, peak)
        end
      end
    end)

    it("of more values than Lua's stack holds are refused", function()
      for codec, text in pairs {
        json = ("\n"):rep(1100000), cjson = ("\n"):rep(1100000),
        lua = "\1\xe0\x91\x43" .. ("\xc0"):rep(1100000) .. "\0",
      } do
        check_malformed(codec, text, "^limit: ", "stack")
        collectgarbage()
      end
      assert.equal(500000, select("#", core.decode("json", ("\n"):rep(500000))))
      assert.is_false(try("json", ("\n"):rep(500000)))
    end)

    it("are charged about what their values take", function()
      local list, objects, strings, records = {}, {}, {}, {}
      for i = 1, 10000 do
        list[i] = i + 0.5
        objects["key" .. i] = i
        strings[i] = "string number " .. i
        records[i] = { id = i, name = "n" .. i, list = { i, i } }
      end
      for _, value in ipairs { list, objects, strings, records } do
        for _, codec in ipairs { "json", "lua" } do
          local text = core.encode(codec, value)
          collectgarbage()
          collectgarbage("stop")
          local before = collectgarbage("count")
          local copy = core.decode(codec, text)
          local taken = math.floor((collectgarbage("count") - before) * 1024)
          collectgarbage("restart")
          assert.equal("table", type(copy))
          local low, high = 0, 1 << 24
          while low < high do
            local budget = (low + high) // 2
            if pcall(core.decode, codec, text, budget) then
              high = budget
            else
              low = budget + 1
            end
          end
          -- Strings that are there already, as most are here, take no memory.
          assert.truthy(low < 2 * taken + (1 << 20), codec)
          assert.truthy(low > taken // 2, codec)
        end
      end
    end)

    it("with keys that all collide do not hold the reader for long #slow", function()
      local n = 150000
      local varint = string.char(n & 127 | 128, n >> 7 & 127 | 128, n >> 14)
      local text = "\1\1\xcb" .. varint .. memory.colliding_pairs(n) .. "\0"
      local began = os.clock()
      local ok, message = pcall(core.decode, "lua", text)
      assert.truthy(ok or message:find("absurdly long", 1, true), message)
      -- Two seconds, what its bytes may take, and the time between two looks.
      assert.truthy(os.clock() - began < 8)
    end)
  end)

  describe("lack of memory", function()
    it("is a Lua error at every allocation, and leaves nothing behind", function()
      for _, codec in ipairs(OWN) do
        -- Each run is a Lua state of its own whose n-th allocation fails.
        local n, failures = 0, 0
        local outcome, left
        repeat
          n = n + 1
          outcome, left = memory.starve(codec, n)
          assert.equal(0, left)
          assert.truthy(outcome == "memory" or outcome == "same" or outcome == "start", outcome)
          failures = failures + (outcome == "memory" and 1 or 0)
        until outcome == "same"
        assert.truthy(failures > 20, failures)
      end
    end)
  end)
end)
