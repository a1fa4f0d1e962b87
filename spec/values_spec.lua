-- SPDX-License-Identifier: MIT
-- Values on the whole way, from the function in a child to its caller.  What
-- the codecs do with each of them is in codec_spec.lua.

local fork_map = require "fork_map"
local process = require "support.process"
local project = require "support.project"
local values = require "support.values"

local OWN = { "auto", "json", "lua" }
local EXACT = { "auto", "lua" }

---They arrive as they were returned.
local function check(codec, ...)
  local sent = table.pack(...)
  local view = fork_map.with { codec = codec }
  values.assert_same(sent, table.pack(view(function()
    return table.unpack(sent, 1, sent.n)
  end)))
end

---The call fails with kind "encode" at `path`.
local function check_refused(codec, path, why, ...)
  local sent = table.pack(...)
  local err = process.failure(fork_map.with { codec = codec }, function()
    return table.unpack(sent, 1, sent.n)
  end)
  assert.equal("encode", err.kind)
  assert.equal(path, err.path)
  assert.truthy(err.message:find(why, 1, true), err.message)
  return err
end

describe("a value on its way to the caller", function()
  process.guard(before_each, after_each)

  before_each(function()
    math.randomseed(20240229)
  end)

  it("is an integer at every edge, and stays one", function()
    for _, codec in ipairs(OWN) do
      check(codec, values.integers, table.unpack(values.integers))
      check(codec, 1, 1.0, { 2, 2.0, -0.0, 0, 3.0 })
    end
  end)

  it("is any of 200,000 doubles of random bits", function()
    local all, finite = values.random_doubles(200000)
    check("auto", all)
    check("lua", all)
    check("json", finite)
  end)

  it("is a zero with its sign, a subnormal, an infinity, a NaN with its payload", function()
    for _, codec in ipairs(OWN) do
      check(codec, values.floats, table.unpack(values.floats))
    end
    for _, codec in ipairs(EXACT) do
      check(codec, values.not_finite, table.unpack(values.not_finite))
    end
  end)

  it("is a string of every byte", function()
    local bytes = {}
    for byte = 0, 255 do
      bytes[#bytes + 1] = string.char(byte)
    end
    local text = table.concat(bytes)
    for _, codec in ipairs(EXACT) do
      check(codec, text, bytes, { [text] = text })
    end
    for _, codec in ipairs(OWN) do
      check(codec, text:sub(1, 128), "\u{0}\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{10ffff}")
    end
  end)

  it("is a string of 64 MB, of text or of bytes #slow", function()
    for _, unit in ipairs { "0123456789abcd\n\"", "\xff\0\xfe\1" } do
      local text = unit:rep((64 << 20) // #unit)
      for _, codec in ipairs(unit:find("\xff") and EXACT or OWN) do
        local got = fork_map.with { codec = codec }(function()
          return text
        end)
        assert.truthy(got == text, codec)
      end
    end
  end)

  it("is a table nested 100 deep, and 1,000", function()
    for _, codec in ipairs(OWN) do
      check(codec, values.nested(100), values.nested(1000))
    end
  end)

  it("is one of several, with nils before, between and after", function()
    for _, codec in ipairs(OWN) do
      check(codec)
      check(codec, nil)
      check(codec, nil, nil, { 1 }, nil, false, nil, nil)
    end
  end)

  it("has holes, and keys of every kind", function()
    for _, codec in ipairs(EXACT) do
      check(codec, { 1, nil, 3, nil, nil, 6 }, { [3] = 3 }, { 1, nil, 3, x = 4 })
      check(codec, { [0] = 0, [-1] = 1, [1 << 40] = 2, [math.mininteger] = 3, [0.5] = 4,
        [math.huge] = 5, [true] = 6, [false] = 7, ["1"] = 8, [1] = 9, [{ 10 }] = { 11 } })
    end
  end)

  it("is shared or cyclic, and its tables are as many as before", function()
    for _, codec in ipairs(EXACT) do
      local shared, loop, a, b = { 1 }, {}, {}, {}
      loop.self, loop[1], a.b, b.a = loop, { loop }, b, a
      check(codec, shared, { shared, x = shared }, loop, { a, b })
    end
  end)

  it("is null, or a marked list", function()
    for _, codec in ipairs(OWN) do
      check(codec, fork_map.null, { fork_map.null }, { x = fork_map.null })
      check(codec, fork_map.array(), { fork_map.array {} })
    end
  end)

  it("is any of 300 random ones", function()
    for i = 1, 300 do
      check(EXACT[i % 2 + 1], values.random(6), values.random(3))
    end
  end)

  it("is exact in a locale with a decimal comma too", function()
    local old = os.setlocale()
    assert.truthy(os.setlocale("de_DE.UTF-8") or os.setlocale("de_DE.utf8"),
      "no locale de_DE.UTF-8: see LOCPATH in spec/run")
    finally(function()
      os.setlocale(old)
    end)
    assert.equal("1,5", ("%.1f"):format(1.5))
    for _, codec in ipairs(OWN) do
      check(codec, 1.5, { 1.5, 2 }, { x = -2.25e-10 }, values.floats)
      assert.equal("1,5", fork_map.with { codec = codec }(string.format, "%.1f", 1.5))
    end
    check_refused("json", "result[1.5]", "key", { [1.5] = 1 })
  end)

  it("is refused with the way to it", function()
    local loop = {}
    loop.again = loop
    for _, codec in ipairs(OWN) do
      check_refused(codec, "result", "function", print)
      check_refused(codec, "result3.a.b[3]", "function", 1, nil, { a = { b = { 1, 2, print } } })
      check_refused(codec, 'result["a b"].f', "userdata", { ["a b"] = { f = io.stdout } })
      check_refused(codec, "result" .. (".a[1]"):rep(500), "deeper than 1000",
        (function()
          local value = "bottom"
          for i = 1, 1001 do
            value = i % 2 == 1 and { a = value } or { value }
          end
          return value.a and value
        end)())
    end
    for path, value in pairs {
      ["result.x[2]"] = { x = { 1, 0 / 0 } }, ["result[1]"] = { math.huge },
      ["result[2]"] = { 1, nil, 3 }, ["result[0]"] = { [0] = 1 }, ["result.again"] = loop,
      ["result.b"] = { b = "\xff" },
    } do
      check_refused("json", path, 'codec = "lua"', value)
    end
  end)

  it("that the caller has no memory for is an error of Lua #slow #not_asan", function()
    -- The host has the value already, so that the child needs little more.
    local script = [[
      local fork_map = require "fork_map"
      local view, list = fork_map.with { codec = arg[1] }, {}
      local made, text = pcall(string.rep, "x", 16 << 20)
      made = made and pcall(function()
        for i = 1, 1 << 19 do list[i] = i / 7 end
      end)
      collectgarbage()
      for _, value in ipairs { made and text or "", list } do
        local ok, err = pcall(view, function() return value end)
        print(ok and "ok" or tostring(err))
      end
    ]]
    local path = project.make_directory()
    finally(function()
      project.remove(path)
    end)
    project.write(path .. "/host.lua", script)
    local cpath = project.quote(os.getenv("FORK_MAP_BUILD") .. "/lua/?.so;;")
    for _, codec in ipairs(OWN) do
      local seen = {}
      for megabytes = 40, 120, 8 do
        local output = project.run(
          ("ulimit -v %d; LUA_PATH='./lua/?.lua;;' LUA_CPATH=%s lua5.4 %s %s"):format(
            megabytes * 1024, cpath, project.quote(path .. "/host.lua"), codec))
        for line in output:gmatch("[^\n]+") do
          seen[line:match("not enough memory") or line] = true
        end
      end
      assert.same({ ok = true, ["not enough memory"] = true }, seen)
    end
  end)
end)
