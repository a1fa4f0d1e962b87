-- SPDX-License-Identifier: MIT
--
-- The codecs beside lua-cjson: values to a string and back, in one process.
--
--   lua5.4 bench/codec.lua [ROUNDS]     (bench/run builds what it needs)
--
-- Each row alternates its candidates within every round (A B C A B C ...) and
-- gives how many times as fast as lua-cjson each is: the median of the rounds'
-- ratios of CPU time, for the way there and back, then for each way alone.  A
-- row that is below its target is marked.  Each candidate begins with the
-- garbage of the others collected and pays for its own.

local cjson = require "cjson"
local core = require "fork_map.core"

local median = require "rows".median
local rounds = math.max(7, tonumber(arg[1] or 9))

---CPU seconds of lua-cjson that a candidate's turn is made to take about.
local TURN = 0.02

-- ---------------------------------------------------------------- candidates

local function ours(codec, format)
  local encode, decode = core.encode, core.decode
  return {
    encode = function(value)
      return encode(codec, value)
    end,
    decode = function(text)
      return decode(format, text)
    end,
  }
end

-- lua-cjson's functions need no wrapper; it has one here, as the others have.
local candidates = {
  {
    encode = function(value)
      return cjson.encode(value)
    end,
    decode = function(text)
      return cjson.decode(text)
    end,
  },
  ours("lua", 2),
  ours("json", 1),
}

-- --------------------------------------------------------------------- mixes

local function list(n, make)
  local items = {}
  for i = 1, n do
    items[i] = make(i)
  end
  return items
end

math.randomseed(20240229)

local function bits()
  local double
  repeat
    double = string.unpack("<d", string.pack("<j", math.random(0)))
  until double - double == 0
  return double
end

local function word(n)
  local bytes = {}
  for i = 1, n do
    bytes[i] = math.random(97, 122)
  end
  return string.char(table.unpack(bytes))
end

local function record(i)
  return {
    id = i, name = "record " .. i, score = i / 7, active = i % 3 == 0,
    tags = { "red", "green", word(6) }, position = { x = i * 0.5, y = -i },
  }
end

local function deep(levels)
  local value = { "bottom" }
  for i = 2, levels do
    value = i % 2 == 0 and { a = value, n = i } or { i, value }
  end
  return value
end

local function wide(n)
  local object = {}
  for i = 1, n do
    object[word(8) .. i] = i
  end
  return object
end

---{title, value, how many times as fast "lua" has to be}; "json" has to be as fast.
local mixes = {
  { "100,000 doubles", list(100000, function(i) return i / 7 end), 5 },
  { "100,000 doubles of random bits", list(100000, bits), 5 },
  { "100,000 doubles of few digits", list(100000, function(i) return i / 4 end), 5 },
  { "100,000 integers 1, 2, 3, ...", list(100000, function(i) return i end), 5 },
  { "100,000 integers below 10^13",
    list(100000, function() return math.random(-10 ^ 13 // 1, 10 ^ 13 // 1) end), 5 },
  { "100,000 integers below 100", list(100000, function() return math.random(-99, 99) end), 5 },
  { "one integer", 12345, 1 },
  { "small table", { x = 10 }, 1 },
  { "small list", { 1, 2.5, "three" }, 1 },
  { "one short string", "a short string", 1 },
  { "1,000 records", list(1000, record), 1 },
  { "10,000 rows of 3 numbers", list(10000, function(i) return { i, i * 2, i / 8 } end), 1 },
  { "10,000 strings of 20", list(10000, function(i) return word(16) .. 1000 + i end), 1 },
  { "50,000 small strings", list(50000, function(i) return "s" .. i % 5000 end), 1 },
  { "1,000 escaped strings",
    list(1000, function(i) return ("a \"line\"\tof\\text\n"):rep(3) .. i end), 1 },
  { "1,000 strings of UTF-8",
    list(1000, function(i) return ("Grüße aus 東京 😀 "):rep(3) .. i end), 1 },
  { "text of 1 MB, German", ("Äpfel und Birnen, größer als üblich, "):rep(1 << 15), 1 },
  { "text of 1 MB, Japanese", ("すべての人間は、生まれながらにして自由であり、"):rep(1 << 14), 1 },
  { "all controls, 20 KB", ("\0\1\2\31\127\"\\"):rep(3000), 1 },
  { "text of 1 MB", ("It was a dark and stormy night.\n"):rep(1 << 15), 1 },
  { "a string of 64 MB", ("0123456789abcdef"):rep(4 << 20), 1 },
  { "500 deep", deep(500), 1 },
  { "object of 10,000 keys", wide(10000), 1 },
  { "20,000 booleans and nulls",
    list(20000, function(i) return i % 3 == 0 and core.null or i % 3 == 1 end), 1 },
  { "10,000 empty tables", list(10000, function() return {} end), 1 },
  { "mixed", { list(300, record), deep(20), wide(300), list(1000, bits), word(200), true }, 1 },
}

-- ---------------------------------------------------------------- measurement

local function clock(n, fn, value)
  local result
  collectgarbage()
  local began = os.clock()
  for _ = 1, n do
    result = fn(value)
  end
  return (os.clock() - began) / n, result
end

---How often lua-cjson does it in the time of a turn.
local function repetitions(value)
  local n = 1
  while true do
    local there, text = clock(n, candidates[1].encode, value)
    local back = clock(n, candidates[1].decode, text)
    local taken = (there + back) * n
    if taken >= TURN / 4 then
      return math.max(1, n * TURN / taken // 1 | 0)
    end
    n = n * 4
  end
end

---The ratios of one round for candidate `i`, added to `ratios[i]`.
local function take_round(value, n, ratios)
  local first
  for i, candidate in ipairs(candidates) do
    local there, text = clock(n, candidate.encode, value)
    local back = clock(n, candidate.decode, text)
    local times = { there + back, there, back }
    first = first or times
    for k = 1, 3 do
      table.insert(ratios[i][k], first[k] / times[k])
    end
  end
end

local function row(title, value, target)
  local n = repetitions(value)
  local ratios = list(#candidates, function() return { {}, {}, {} } end)
  take_round(value, n, list(#candidates, function() return { {}, {}, {} } end)) -- warm
  for _ = 1, rounds do
    take_round(value, n, ratios)
  end
  local columns, missed = {}, 0
  for i = 2, #candidates do
    local both, there, back = median(ratios[i][1]), median(ratios[i][2]), median(ratios[i][3])
    local is_missed = both < (i == 2 and target or 1)
    missed = missed + (is_missed and 1 or 0)
    columns[#columns + 1] = ("%7.2f%s %6.2f %6.2f"):format(both, is_missed and "!" or " ", there,
      back)
  end
  io.write(("  %-32s %2d %s  %s\n"):format(title, target, columns[1], columns[2]))
  io.flush()
  return missed
end

io.write("how many times as fast as lua-cjson: there and back, there alone, back alone\n")
io.write(("  %-30s%s  %s\n"):format("", "target  lua  there   back", "    json  there   back"))
local missed = 0
for _, mix in ipairs(mixes) do
  missed = missed + row(table.unpack(mix))
end
io.write(missed == 0 and "  all targets are met\n" or ("  %d missed, marked !\n"):format(missed))
