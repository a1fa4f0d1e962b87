-- SPDX-License-Identifier: MIT
-- Options: what they may be, said once.  Everything that users pass in a table
-- of options is checked here, before any process exists.

local checks = require "fork_map.checks"
local core = require "fork_map.core"

local M = {}

---@class (exact) fork_map.Limits
---@field memory? integer|string growth of the Lua heap over the fork, in bytes
---@field cpu? number seconds of processor time
---@field file_size? integer|string bytes of any file it writes
---@field result? integer|string bytes of the result ["256M"]
---@field files? integer descriptors that it may open
---@field processes? integer processes that it may start

---@class fork_map.Codec
---@field encode fun(packed: table): string
---@field decode fun(text: string): table

---@alias fork_map.LineHandler fun(line: string, stream: "stdout"|"stderr", index: integer?)

---Options of a call.
---@class (exact) fork_map.Options
---@field timeout? number seconds of one attempt [none]
---@field grace? number seconds between SIGTERM and SIGKILL [1]
---@field retries? integer further attempts [0]
---@field retry_on? fork_map.Kind[] [{"signal", "exit", "no_result"}]
---@field backoff? number seconds before the next attempt, doubled each time [0]
---@field limits? fork_map.Limits
---@field codec? "auto"|"json"|"lua"|"cjson"|fork_map.Codec ["auto"]
---@field seed? integer base of the random numbers of the child [fresh]
---@field output? "inherit"|"capture"|"discard"|fork_map.LineHandler
---@field keep_fds? "all"|integer[] descriptors that the child keeps ["all"]
---@field nice? integer added to the scheduling priority [0]
---@field name? string label in errors and titles
---@field executor? false|fork_map.Executor where it runs [the engine]

---Options of an engine, beside those that are the defaults of its calls.
---@class (exact) fork_map.EngineOptions: fork_map.Options
---@field max_children? integer living children at once
---@field max_depth? integer children of children [16]
---@field on_threads? "warn"|"refuse"|"ignore" ["warn"]
---@field on_warning? false|fun(message: string) [prints to stderr]
---@field on_unhandled? false|fun(err: any, why: "unseen"|"callback") [warns]

local duration = checks.duration
local pause = checks.pause
local integer = checks.integer
local size = checks.size
local one_of = checks.one_of
local or_function = checks.or_function
local callback = checks.callback
local show = checks.show
local retryable = checks.retryable
local keep_fds = checks.keep_fds
local codec = checks.codec
local label = checks.label
local number_of_seed = checks.number_of_seed
local executor = checks.executor
local count = checks.count
local chunk = checks.chunk
local file_name = checks.file_name
local flag_or_function = checks.flag_or_function

local LIMITS = {
  memory = size(1),
  cpu = duration,
  file_size = size(0),
  result = size(1),
  files = integer(0, 0x7FFFFFFF),
  processes = integer(0, 0x7FFFFFFF),
}

local CALL = {
  timeout = duration,
  grace = pause,
  retries = integer(0, 1000000),
  retry_on = retryable,
  backoff = pause,
  limits = LIMITS,
  codec = codec,
  seed = number_of_seed,
  output = or_function(one_of("inherit", "capture", "discard")),
  keep_fds = keep_fds,
  nice = integer(-20, 19),
  name = label,
}

---Options of a nursery, and defaults of the calls in it.
---@class (exact) fork_map.NurseryOptions: fork_map.Options
---@field on_error? "raise"|"keep" the first failure cancels the rest; or all come to their end
---@field deadline? number|string seconds until everything in it is cancelled
---@field max_active? integer processes at once; more wait

---Options of verbs over many items, beside those of a call.
---@class (exact) fork_map.MapOptions: fork_map.Options
---@field workers? integer|string children at once; 0 is none ["auto"]
---@field nested? "inline"|"fork" how it runs inside a worker ["inline"]
---@field chunk? "auto"|integer|{min?: integer, max?: integer} items per hand-over ["auto"]
---@field isolate? "worker"|"chunk"|"item" what gets a fresh process ["worker"]
---@field on_error? "raise"|"collect" ["raise"]
---@field deadline? number seconds for the whole verb [none]
---@field max_active? integer items begun and not consumed
---@field init? fun() run in each worker before its first item
---@field exit? fun() run in each worker after its last item
---@field max_tasks? integer a worker is replaced after so many items
---@field max_rss? integer|string a worker is replaced above that size
---@field progress? boolean|fun(progress: fork_map.Progress)
---@field journal? string file in which finished items survive
---@field on_event? fun(value: any, index: integer) for what emit() sends
---@field which? "any"|"first" of find ["any"]

local MAP = {
  workers = count,
  nested = one_of("inline", "fork"),
  chunk = chunk,
  isolate = one_of("worker", "chunk", "item"),
  on_error = one_of("raise", "collect"),
  deadline = duration,
  max_active = integer(1, 1 << 30),
  init = callback,
  exit = callback,
  max_tasks = integer(1, 1 << 40),
  max_rss = size(1),
  progress = flag_or_function,
  journal = file_name,
  on_event = callback,
  which = one_of("any", "first"),
}

---What `workers = "auto"` is: the variable FORK_MAP_WORKERS, else how many
---processors this process may use.
---@return integer?
---@return string? text what is wrong with the variable
function M.auto_workers()
  local text = os.getenv("FORK_MAP_WORKERS")
  if text == nil or text == "" then
    return core.count_cpus()
  end
  local n = text:match("^%d+$") and math.tointeger(tonumber(text))
  if not n or n > 4096 then
    return nil, "fork_map: the variable FORK_MAP_WORKERS must be a number from 0 to 4096, not "
      .. show(text)
  end
  return n
end

local ENGINE = {
  max_children = integer(1, 1000000),
  max_depth = integer(1, 1000),
  on_threads = one_of("warn", "refuse", "ignore"),
  on_warning = callback,
  on_unhandled = callback,
}

-- The known name that `name` is nearest to, if it is near: one letter more,
-- less or other, or two in the wrong order.
local function nearest(name, schema)
  local found
  for known in pairs(schema) do
    local i = 1
    while name:byte(i) and name:byte(i) == known:byte(i) do
      i = i + 1
    end
    local rest, known_rest = name:sub(i + 1), known:sub(i + 1)
    local swapped = name:sub(i, i + 1):reverse() .. name:sub(i + 2)
    local near = rest == known_rest or name:sub(i) == known_rest or rest == known:sub(i)
      or swapped == known:sub(i)
    if near and (not found or known < found) then
      found = known
    end
  end
  return found
end

local function unknown(name, schema, prefix)
  if type(name) ~= "string" then
    return ("options are named by texts, not by %s"):format(show(name))
  end
  local near = nearest(name, schema)
  local hint = near and (' (did you mean "%s%s"?)'):format(prefix, near) or ""
  return ('unknown option "%s%s"%s'):format(prefix, name, hint)
end

local check_table

-- Returns the checked value, or nil and what is wrong.
local function check_one(name, value, schema, prefix)
  local check = schema[name]
  if not check then
    return nil, unknown(name, schema, prefix)
  end
  local checked, expected, found
  if type(check) == "function" then
    checked, expected, found = check(value)
  elseif type(value) == "table" then
    return check_table(value, check, prefix .. name .. ".")
  else
    expected = "a table"
  end
  if checked == nil then
    local text = 'option "%s%s" must be %s, not %s'
    return nil, text:format(prefix, name, expected, found or show(value))
  end
  return checked
end

function check_table(opts, schema, prefix)
  local checked = {}
  for name, value in next, opts do
    local result, text = check_one(name, value, schema, prefix)
    if result == nil then
      return nil, text
    end
    checked[name] = result
  end
  return checked
end

local function check_opts(opts, schema)
  if type(opts) ~= "table" then
    return nil, "fork_map: options must be a table, not " .. show(opts)
  end
  local checked, text = check_table(opts, schema, "")
  return checked, text and "fork_map: " .. text
end

-- All of these tables in one; the last has its way.
local function join(...)
  local all = {}
  for _, source in ipairs { ... } do
    for name, value in pairs(source) do
      all[name] = value
    end
  end
  return all
end

-- Those of which the schema knows, and the others.
local function take_apart(checked, schema)
  local known, others = {}, {}
  for name, value in pairs(checked) do
    local target = schema[name] and known or others
    target[name] = value
  end
  return known, others
end

-- What a view may have: defaults of calls and of verbs over many items.
local ITEMS = join(CALL, MAP, { executor = executor })

---Check the options of a view.
---@param opts fork_map.MapOptions
---@return table? checked
---@return string? text what is wrong
function M.check_call(opts)
  return check_opts(opts, ITEMS)
end

---Check the options of a verb over many items.
---@param opts fork_map.MapOptions
---@return table? checked
---@return string? text what is wrong
function M.check_map(opts)
  return check_opts(opts, ITEMS)
end

local NURSERY = join(CALL, {
  on_error = one_of("raise", "keep"),
  deadline = duration,
  max_active = integer(1, 1 << 30),
  executor = executor,
})

---Check the options of a nursery and of the calls in it.
---@param opts fork_map.NurseryOptions
---@return table? checked
---@return string? text what is wrong
function M.check_nursery(opts)
  return check_opts(opts, NURSERY)
end

---For options that are checked elsewhere.
M.CALL, M.MAP = CALL, MAP
M.check_opts, M.join = check_opts, join

-- A program and its arguments.
local function argv(value)
  if type(value) == "table" and #value > 0 then
    for _, text in ipairs(value) do
      if type(text) ~= "string" or text:find "%z" then
        return nil, "a list of strings, the program first"
      end
    end
    return { table.unpack(value) }
  end
  return nil, "a list of strings, the program first"
end

-- A function that gives descriptors, or one, or two.
local function connection(value)
  if type(value) == "function" or type(value) == "table" or math.type(value) == "integer" then
    return value
  end
  return nil, "a function, a descriptor, or {read_fd, write_fd}"
end

---Options of a template, and of the calls that it forks.
---@class (exact) fork_map.TemplateOptions: fork_map.Options
---@field from? "exec"|"fork" a fresh interpreter, or a copy of this program
---@field exec? string[] a program that serves, and its arguments
---@field connect? any a template elsewhere: a descriptor, a pair, or a function that gives this

-- Of a template itself; the others are for the calls that it forks.
local TEMPLATE = { from = one_of("exec", "fork"), exec = argv, connect = connection }
local TEMPLATE_ALL = join(TEMPLATE, CALL)

---Check the options of a template.
---@param opts fork_map.TemplateOptions
---@return table? own its own, or nil
---@return table|string checked those of its calls, or what is wrong
function M.check_template(opts)
  local checked, text = check_opts(opts, TEMPLATE_ALL)
  if not checked then
    return nil, text
  end
  local own, calls = take_apart(checked, TEMPLATE)
  if (own.exec or own.from) and own.connect then
    return nil, 'fork_map: option "connect" says where the template is: "from" and "exec" do not'
      .. " go with it"
  elseif own.exec and own.from == "fork" then
    return nil, 'fork_map: option "exec" does not go with from = "fork"'
  end
  return own, calls
end

---Check the options of an engine only.
---@param opts table
---@return table? checked
---@return string? text what is wrong
function M.check_engine(opts)
  return check_opts(opts, ENGINE)
end

local BOTH = join(ITEMS, ENGINE)

---Check the options of an engine together with the defaults of its calls.
---@param opts fork_map.EngineOptions
---@return table? checked
---@return string? text what is wrong
function M.check_both(opts)
  if type(opts) == "table" and opts.executor ~= nil then
    return nil, 'fork_map: option "executor" is for views, nurseries and verbs, not for engines'
  end
  return check_opts(opts, BOTH)
end

---Take checked options apart.
---@param checked table
---@return table engine_opts
---@return table call_opts
function M.split(checked)
  return take_apart(checked, ENGINE)
end

---`opts` over `base`; limits are merged one by one.  Neither is changed.
---@param base table
---@param opts table
---@return table
function M.merge(base, opts)
  local merged = join(base, opts)
  if base.limits and opts.limits then
    merged.limits = M.merge(base.limits, opts.limits)
  end
  return merged
end

-- Limits that are all false are lifted, and an option that is false is "none".
local function is_set(name, value)
  if name == "limits" and value then
    for _, limit in pairs(value) do
      if limit then
        return true
      end
    end
    return false
  end
  return value and true or false
end

-- Options that have no meaning without a process of its own.
local NEEDS_PROCESS = { "limits", "output", "keep_fds", "nice" }

---An option that is set and has no meaning without a process.
---@param checked table
---@return string? name
function M.find_process_option(checked)
  for _, name in ipairs(NEEDS_PROCESS) do
    local value = checked[name]
    if is_set(name, value) and value ~= "inherit" and value ~= 0 then
      return name
    end
  end
  if checked.isolate and checked.isolate ~= "worker" then
    return "isolate"
  end
end

---Those that are of calls; false lifts a default.
---@param checked table
---@return table
function M.of_calls(checked)
  return (take_apart(checked, CALL))
end

---An option of calls that is set: for who knows none of them.
---@param checked table
---@return string? name
function M.find_call_option(checked)
  local found
  for name, value in pairs(checked) do
    if CALL[name] and is_set(name, value) and (not found or name < found) then
      found = name
    end
  end
  return found
end

---The form that core.spawn() takes.
---@param checked table
---@return fork_map.core.Options? prepared
---@return string? text what is wrong, that only the engine can tell
function M.prepare(checked)
  local flat = {}
  -- false stands for "none", which is what an absent option means.
  for name, value in pairs(checked) do
    if CALL[name] then
      flat[name] = value or nil
    end
  end
  for name, value in pairs(checked.limits or {}) do
    flat[name] = value or nil
  end
  flat.limits = nil
  local ok, prepared = pcall(core.options, flat)
  if ok then
    return prepared
  end
  -- Without the position, which is that of the pcall.
  local text = tostring(prepared):gsub("^[^\n]-:%d+: ", "")
  return nil, "fork_map: " .. text
end

return M
