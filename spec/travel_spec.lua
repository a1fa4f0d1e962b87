-- SPDX-License-Identifier: MIT
local travel = require "fork_map.travel"

-- Specs have an _ENV of their own; chunks that load() makes have the globals.
local function chunk(text)
  return assert(load(text, "=chunk"))
end

local RULE = "only _ENV can be captured by a function that is run in a template"

-- What `fn` is after it has travelled.
local function there(fn)
  local kind, text = travel.pack(fn)
  assert.is_string(kind, text)
  return assert(travel.unpack(kind, text))
end

describe("travel.pack()", function()
  it("takes a function without upvalues, and one that uses globals", function()
    local add = function(a, b) return a + b end
    assert.equal("dump", (travel.pack(add)))
    assert.equal(5, there(add)(2, 3))
    assert.equal("3", there(chunk "local n = ... return tostring(n)")(3))
  end)

  it("takes a function whose _ENV is not its first upvalue's name", function()
    local fn = chunk "local _ENV = _ENV return function(v) return type(v) end" ()
    assert.equal("number", there(fn)(1))
    fn = chunk "return function() return function() return type end end" ()
    assert.equal(type, there(fn)()())
  end)

  it("keeps the lines of the function for tracebacks", function()
    local fn = there(chunk "return 1\n+ nil")
    local ok, message = pcall(fn)
    assert.same({ false, "chunk:2" }, { ok, message:match("^chunk:%d") })
  end)

  it("names a captured variable, the function itself included", function()
    local x = 1
    assert.same({ nil, 'the function captures "x"; ' .. RULE },
      { travel.pack(function() return x end) })
    local function again(n) return n > 0 and again(n - 1) end
    assert.same({ nil, 'the function captures "again"; ' .. RULE }, { travel.pack(again) })
    local fn = chunk "local late return function() return print, late end" ()
    assert.same({ nil, 'the function captures "late"; ' .. RULE }, { travel.pack(fn) })
  end)

  it("refuses an _ENV that is another table", function()
    local fn = load("return print", "=chunk", "t", { print = print })
    assert.same({ nil, "the function captures an _ENV that is not the table of globals; " .. RULE },
      { travel.pack(fn) })
  end)

  it("refuses the table of globals under another name", function()
    local g = _G
    assert.same({ nil, 'the function captures "g"; ' .. RULE },
      { travel.pack(function() return g end) })
  end)

  it("goes by the value when the names were stripped", function()
    local fn = load(string.dump(chunk "return type(...)", true), nil, "b")
    assert.equal("(no name)", (debug.getupvalue(fn, 1)))
    assert.equal("nil", there(fn)(nil))
    debug.setupvalue(fn, 1, { type = type })
    assert.same({ nil, "the function captures something that has lost its name; " .. RULE },
      { travel.pack(fn) })
  end)

  it("refuses a function of C, and tells how to name it", function()
    local kind, message = travel.pack(string.rep)
    assert.is_nil(kind)
    assert.matches('name it as "module:function"', message, 1, true)
  end)

  it("takes the name of a function of a module", function()
    assert.same({ "name", "a.b:c.d" }, { travel.pack("a.b:c.d") })
    assert.same({ "name", "some-thing/x:_f1" }, { travel.pack("some-thing/x:_f1") })
  end)

  it("refuses texts that are no such name", function()
    for _, text in ipairs {
      "", "string", "string:", ":rep", "a:b:c", "a:b()", "a:1", "a:b..c", "a:.b", "a:b.", ".a:b",
      "a.:b", "a..b:c", "a b:c", "a\n:c", "a\0:c", "a:c d",
    } do
      assert.same({ nil, '"' .. text .. '" is no name of the form "module:function"' },
        { travel.pack(text) })
    end
  end)

  it("refuses what is neither a function nor a text", function()
    local callable = setmetatable({}, { __call = function() end })
    for _, value in ipairs { 1, true, callable } do
      assert.same({ nil, 'a function or "module:function" is expected, not a ' .. type(value) },
        { travel.pack(value) })
    end
  end)
end)

describe("travel.unpack()", function()
  local loaded
  before_each(function()
    loaded = package.loaded["specs.travel"]
  end)
  after_each(function()
    package.loaded["specs.travel"], package.preload["specs.travel"] = loaded, nil
  end)

  it("finds a function by the path in its module", function()
    assert.equal(string.rep, (travel.unpack("name", "string:rep")))
    local callable = setmetatable({}, { __call = function() return 7 end })
    package.loaded["specs.travel"] = { inner = setmetatable({}, { __index = { go = callable } }) }
    assert.equal(7, travel.unpack("name", "specs.travel:inner.go")())
  end)

  it("tells what require() raised", function()
    package.preload["specs.travel"] = function() error("not today", 0) end
    local fn, message = travel.unpack("name", "specs.travel:go")
    assert.is_nil(fn)
    assert.matches("not today", message, 1, true)
    fn, message = travel.unpack("name", "specs.nowhere:go")
    assert.is_nil(fn)
    assert.matches("module 'specs.nowhere' not found", message, 1, true)
  end)

  it("tells what the path does not lead to", function()
    assert.same({ nil, 'module "string" has no "reps"' }, { travel.unpack("name", "string:reps") })
    assert.same({ nil, '"pi" of module "math" is a number, not a function' },
      { travel.unpack("name", "math:pi") })
    local fn, message = travel.unpack("name", "math:pi.x")
    assert.is_nil(fn)
    assert.is_string(message)
    package.loaded["specs.travel"] = true
    fn, message = travel.unpack("name", "specs.travel:x")
    assert.is_nil(fn)
    assert.is_string(message)
  end)

  it("loads nothing but what pack() gave", function()
    assert.is_nil((travel.unpack("dump", "return 1")))
    assert.is_nil((travel.unpack("name", "return 1")))
    assert.same({ nil, "a function cannot come as source" }, { travel.unpack("source", "x") })
  end)

  it("gives the function the globals of the process that it is in", function()
    local fn = there(chunk "return _ENV")
    assert.equal(chunk "return _ENV" (), fn())
    local _, env = debug.getupvalue(fn, 1)
    assert.equal(chunk "return _ENV" (), env)
  end)
end)
