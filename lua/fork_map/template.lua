-- SPDX-License-Identifier: MIT
-- Templates: small prepared processes to fork from, as their host sees them.
--
-- What a template is asked for is carried out in order, and each command is answered.
-- Who gives commands does not wait for that; the first that fails settles the template.

local cells = require "fork_map.cell"
local channels = require "fork_map.channel"
local core = require "fork_map.core"
local futures = require "fork_map.future"
local loops = require "fork_map.loop"
local options = require "fork_map.options"
local server = require "fork_map.server"
local timers = require "fork_map.timers"
local travel = require "fork_map.travel"

local M = {}

local COMMANDS, JOBS = server.COMMANDS, server.JOBS

-- Commands that may wait for their answers; who gives more waits.
local OPEN_MOST = 1000

-- Commands that are on their way; others wait here.
local ASKED_MOST = 16

-- Functions that a template keeps for its children.
local KNOWN_MOST = 256

-- Descriptors in one command.
local FDS_MOST = 15

---A process to fork from: its cost depends neither on the host's size nor on its
---threads.  Dropping it closes it; what it has forked goes on.
---@class fork_map.Template: fork_map.Executor
---@field package core fork_map.core.Template
---@field package loop fork_map.Loop
---@field package opts table options of the calls that it forks
---@field package call table what its calls are made with
---@field package is_taken boolean run() was called
---@field package known table<string, integer|false> code that was sent, by its text
---@field package has_all boolean? it was told to load all of fork_map
---@field package is_forked boolean? another one was forked off it
local Template = { __name = "fork_map.Template" }
Template.__index = Template
M.Template = Template

local function check(self, name)
  if getmetatable(self) ~= Template then
    error(("fork_map: template:%s: call it with a colon"):format(name), 3)
  end
  return self
end

local function new_closed_error(self)
  if self.loop:is_stale() then
    return loops.new_stale_error()
  end
  return cells.new_error("closed", "the template is closed")
end

---The error of every use, or nil.
local function find_error(self)
  if self.loop:is_stale() then
    return loops.new_stale_error()
  end
  local state = core.template_state(self.core)
  if state == "failed" then
    return core.template_failure(self.core)
  elseif state == "closed" or state == "away" or self.is_taken then
    return new_closed_error(self)
  end
end

-- ---------------------------------------------------------------- waiting

-- What the loop gives back when something has changed: one for all that wait.  It holds
-- the template, which is listed while it is not taken, and the future, which would be
-- cancelled if nobody had it.
local Entry = {}
Entry.__index = Entry

function Entry:take()
  local cell = self.cell
  self.template.entry = nil
  if cell:succeed(0, {}) then
    cell.loop.n_settled = cell.loop.n_settled - 1 -- nobody asked for this future
  end
end

local VERBS = { is_signal = true }

local function new_entry(self)
  local cell = cells.new(self.loop, "template", VERBS)
  local entry = setmetatable({
    template = self, cell = cell, future = futures.new(cell), n_waiting = 0,
  }, Entry)
  self.entry = entry
  core.template_watch(self.core, entry)
  return entry
end

-- The last one that waits takes it along, if nothing has changed.
local function leave(entry)
  local template = entry.template
  entry.n_waiting = entry.n_waiting - 1
  if entry.n_waiting == 0 and template.entry == entry then
    core.template_watch(template.core, nil)
    entry:take()
  end
end

-- Until something has changed, or `deadline`.  Several may wait.
local function wait_change(self, deadline, is_shielded)
  local loop = self.loop
  local entry = self.entry or new_entry(self)
  entry.n_waiting = entry.n_waiting + 1
  loop.n_watches = loop.n_watches + 1
  local _ <close> = setmetatable({}, { __close = function()
    loop.n_watches = loop.n_watches - 1
    leave(entry)
  end })
  return loops.wait(entry.future, entry.cell, deadline, is_shielded)
end

-- Commands that are not answered are bounded: who can wait does.
local function wait_room(self)
  local _, _, n = core.template_state(self.core)
  while n >= OPEN_MOST do
    if loops.find_refusal(self.loop) then
      local err = cells.new_error("limit", ("%d commands wait for the template"):format(n))
      err.limit = "queue"
      error(err, 0)
    end
    wait_change(self)
    _, _, n = core.template_state(self.core)
  end
end

-- --------------------------------------------------------------- commands

-- The values as one string; raises what cannot cross, whose names in paths are those of
-- the values behind the first `n_own`.
local function encode(n_own, ...)
  local bytes, path, message = core.encode_args("lua", ...)
  if bytes then
    return bytes
  end
  path = path:gsub("^arg(%d+)", function(i)
    return ("arg%d"):format(i - n_own)
  end)
  local err = cells.new_error("encode", ("%s: %s"):format(path, message))
  err.path = path
  error(err, 0)
end

-- Give the command with these descriptors.
local function command(self, kind, bytes, is_last, ...)
  wait_room(self)
  local err = find_error(self)
  if err then
    error(err, 0)
  end
  local ok, message, name = core.template_call(self.core, kind, bytes, is_last, ...)
  if not ok then
    error(find_error(self) or cells.new_error("spawn", ("%s (%s)"):format(message, name)), 0)
  end
  return self
end

local function check_use(self)
  local err = find_error(self)
  if err then
    error(err, 0)
  end
end

M.find_error = find_error

-- A template has no more of fork_map than it needs itself; this is for children that
-- need the rest.
local function load_all(self)
  if not self.has_all then
    self.has_all = true
    core.template_call(self.core, COMMANDS.load, "", false)
  end
end

---Wait until the process of a template that was closed has ended.
---@param template fork_map.Template
---@param is_shielded? boolean
function M.join(template, is_shielded)
  while core.template_pid(template.core) do
    wait_change(template, nil, is_shielded)
  end
end

---Require these modules there.
---@param ... string
---@return fork_map.Template self
function Template:require(...)
  check(self, "require")
  for i = 1, select("#", ...) do
    local name = select(i, ...)
    if type(name) ~= "string" or name == "" then
      error(("fork_map: template:require: argument %d must be the name of a module"):format(i), 2)
    end
  end
  check_use(self)
  return command(self, COMMANDS.require, encode(0, ...))
end

---Run this code there, with the further arguments as its `...`: source text, or a
---function that captures nothing but _ENV.  What it returns is dropped.
---@param code string|function
---@param ... any
---@return fork_map.Template self
function Template:eval(code, ...)
  check(self, "eval")
  local kind, text = travel.pack_code(code)
  if not kind then
    error("fork_map: template:eval: " .. text, 2)
  end
  check_use(self)
  if text:find("fork_map", 1, true) then
    load_all(self)
  end
  return command(self, COMMANDS.eval, encode(2, kind, text, ...))
end

---Keep these values there, for the function that runs later: it gets what was sent
---first, in the order sent.
---@param ... any
---@return fork_map.Template self
function Template:send_arg(...)
  check(self, "send_arg")
  check_use(self)
  return command(self, COMMANDS.arg, encode(0, ...))
end

-- The numbers of descriptors; raises for the caller's caller.
local function find_fds(...)
  local fds = {}
  for i = 1, select("#", ...) do
    local fd, problem = channels.find_fd((select(i, ...)))
    if not fd then
      error(("fork_map: template:send_fd: argument %d: %s"):format(i, problem), 3)
    end
    fds[i] = fd
  end
  return fds
end

---Keep copies of these descriptors there, made at once, as send_arg() keeps values:
---they arrive as integers, which fork_map.file() makes files of.
---@param ... any numbers, files, or what has a method fileno(), getfd() or fd()
---@return fork_map.Template self
function Template:send_fd(...)
  check(self, "send_fd")
  local fds = find_fds(...)
  check_use(self)
  for i = 1, #fds, FDS_MOST do
    command(self, COMMANDS.fd, "", false, table.unpack(fds, i, math.min(i + FDS_MOST - 1, #fds)))
  end
  return self
end

-- ------------------------------------------------------------ new processes

local own_options

local function new(loop, opts, call, make, ...)
  loop:check_open()
  return setmetatable({
    loop = loop, opts = opts, call = call, core = make(loop.core, own_options(opts), ...),
    known = { n = 0, n_there = 0 },
  }, Template)
end

-- A fork that cannot be asked for now would be overtaken by the commands that follow.
local function wait_turn(self)
  local state, _, n = core.template_state(self.core)
  while (state == "starting" or n >= ASKED_MOST) and not loops.find_refusal(self.loop) do
    wait_change(self)
    state, _, n = core.template_state(self.core)
  end
end

---Another template, forked off this one: with all that it was told and sent so far.
---Waits while this one is starting, or has much to do.
---@return fork_map.Template
function Template:fork()
  check(self, "fork")
  check_use(self)
  wait_turn(self)
  check_use(self)
  return M.new_forked(self.loop, self.opts, self.call, self)
end

---Have `module:function` take the process over: it gets a channel, then what was sent,
---then `...`.  The template can be told nothing more; closing it, or the channel, ends
---the process: it meets the end of the channel, and is ended after the option `grace`.
---@param name string|function
---@param ... any
---@return fork_map.Channel
function Template:run(name, ...)
  check(self, "run")
  local kind, text = travel.pack(name)
  if not kind then
    error("fork_map: template:run: " .. text, 2)
  end
  check_use(self)
  local bytes = encode(2, kind, text, ...)
  local channel, fd, errno = channels.pair(self.loop)
  if not channel then
    error(cells.new_error("spawn", ("%s (%s)"):format(fd, errno)), 0)
  end
  local _ <close> = setmetatable({}, { __close = function()
    core.close_fd(fd)
  end })
  command(self, COMMANDS.run, bytes, true, fd)
  self.is_taken = true
  channel:on_close(function()
    self:close()
  end)
  return channel
end

local JOB = {
  cancel = futures.JOB.cancel,
  status = futures.JOB.status,
  pid = futures.JOB.pid,
  start = function(cell)
    local args, loop = cell.args, cell.loop
    local ok, bytes = pcall(encode, 5, cell.codec, cell.seed or false, cell.index or false,
      cell.kind_of_fn, cell.text, table.unpack(args, 1, args.n))
    if not ok then
      cell:fail(cells.to_error(bytes))
      return
    end
    loop.n_jobs = loop.n_jobs + 1
    local future
    ok, future = pcall(core.template_spawn, cell.template.core, cell.prepared, cell, JOBS.call,
      bytes)
    if not ok then
      loop.n_jobs = loop.n_jobs - 1
      cell:fail(find_error(cell.template) or cells.to_error(future))
      return
    end
    cell.core = future
    cell.args = nil
    cell:move("state", "started")
  end,
}

-- Code that is sent again is loaded there once, and then called by a number.  What is
-- required is not, as modules may do what they like when they are loaded.
local function abbreviate(self, kind, text)
  local known = self.known
  local number = known[text]
  if kind ~= "dump" or number == nil and known.n == KNOWN_MOST then
    return kind, text
  elseif number == nil then
    known[text] = false -- once
    known.n = known.n + 1
    return kind, text
  elseif not number then
    local _, _, n_open = core.template_state(self.core)
    local bytes = encode(0, known.n_there + 1, kind, text)
    if n_open >= OPEN_MOST or not core.template_call(self.core, COMMANDS.know, bytes, false) then
      return kind, text
    end
    number = known.n_there + 1
    known.n_there, known[text] = number, number
  end
  return "known", number
end

-- The constant "fork_map" in the code of a function: its length and one, marked as the
-- last byte of that, and the text.
local NAME_IN_CODE = "\x89fork_map"

local function spawn(self, call, scope, index, kind, text, ...)
  local loop = self.loop
  loop:check_open()
  if kind == "dump" and not self.has_all and text:find(NAME_IN_CODE, 1, true) then
    load_all(self)
  end
  local cell = cells.new(loop, "job", JOB)
  cell.template, cell.prepared, cell.codec = self, call.prepared, call.codec
  cell.kind_of_fn, cell.text = abbreviate(self, kind, text)
  cell.seed, cell.index = index and call.seed, index
  return futures.call(cell, scope, ...)
end

---Call a function in a process forked off the template: one that captures nothing but
---_ENV, or "module:function".  It gets what was sent, then `...`.
---@param fn function|string
---@param ... any
---@return fork_map.Future
function Template:spawn(fn, ...)
  check(self, "spawn")
  local kind, text = travel.pack(fn)
  if not kind then
    error("fork_map: template:spawn: " .. text, 2)
  end
  check_use(self)
  return spawn(self, self.call, nil, nil, kind, text, ...)
end

-- -------------------------------------------------------------------- state

---Workers of a pool will be hired, which need all of fork_map.
function Template:__expect_hires()
  load_all(self)
end

---Fork a worker of a pool off it, where `module:function` gets what was sent, then
---`...`; see fork_map/crew_worker.lua.  Raises why that cannot be.
---@return fork_map.core.Future
function Template:__hire(prepared, codec, cell, name, ...)
  check_use(self)
  local bytes = encode(5, codec, false, false, "name", name, ...)
  return core.template_spawn(self.core, prepared, cell, JOBS.call, bytes, true)
end

---The same for a snapshot that was made with a function of that name.
---@return fork_map.core.Future
function Template:__hire_kept(prepared, codec, cell, name)
  local bytes = encode(1, codec, name)
  return core.template_spawn(self.core, prepared, cell, JOBS.kept, bytes, true)
end

---The id of its process, while there is one.
---@return integer?
function Template:pid()
  check(self, "pid")
  return not self.loop:is_stale() and core.template_pid(self.core) or nil
end

---What it is: "starting", "ready", "failed" or "closed".
---@return "starting"|"ready"|"failed"|"closed"
function Template:status()
  check(self, "status")
  local state = self.loop:is_stale() and "closed" or core.template_state(self.core)
  return (state == "away" or self.is_taken and state == "ready") and "closed" or state
end

local function is_done(self)
  local state, is_settled = core.template_state(self.core)
  if state == "failed" then
    error(core.template_failure(self.core), 0)
  elseif state == "closed" then
    error(new_closed_error(self), 0)
  elseif state == "away" and not core.template_pid(self.core) then
    local err = core.template_failure(self.core)
    if err and (err.kind == "error" or err.signal or (err.exit_code or 0) ~= 0) then
      error(err, 0)
    end
  end
  return is_settled
end

---Wait until everything that it was told is carried out, at most `seconds`.  Raises the
---first error, as every later use does; once the function that has taken it over has
---ended, what that has ended with, if it is an error.
---@param seconds? number
---@return boolean done false when the time is over
function Template:wait(seconds)
  check(self, "wait")
  if seconds ~= nil and not timers.is_span(seconds) then
    error("fork_map: template:wait: seconds must be a number of at least 0", 2)
  elseif self.loop:is_stale() then
    error(loops.new_stale_error(), 0)
  end
  local deadline = seconds and core.now() + seconds
  while not is_done(self) do
    if not wait_change(self, deadline) then
      return is_done(self)
    end
  end
  return true
end

---Let go of it: it ends when it has carried out what is on its way to it, or is ended
---after `grace` seconds [the option of that name].  What waits behind sixteen commands is
---dropped.  What it has forked goes on.  May be repeated.
---@param grace? number
function Template:close(grace)
  check(self, "close")
  if grace ~= nil and not timers.is_span(grace) then
    error("fork_map: template:close: grace must be a number of at least 0", 2)
  end
  if not self.loop:is_stale() then
    core.template_close(self.core, grace or self.opts.grace or 1)
  end
end

Template.__close = function(self)
  self:close()
end

-- ------------------------------------------------------------------ executor

-- As the executors of this library; see fork_map/executor.lua.

---What calls are made with, or nil and what is wrong.
function M.new_call(opts)
  local prepared, text = options.prepare(opts)
  if not prepared then
    return nil, text
  elseif type(opts.codec) == "table" then
    return nil, 'fork_map: option "codec" of a template is a name: functions stay here'
  elseif type(opts.keep_fds) == "table" and next(opts.keep_fds) then
    return nil, 'fork_map: option "keep_fds" of a template: use send_fd()'
  end
  return { prepared = prepared, codec = opts.codec or "auto", seed = opts.seed }
end

function Template:__prepare(opts)
  return M.new_call(options.merge(self.opts, opts))
end

function Template:__spawn(call, scope, index, fn, ...)
  local kind, text = travel.pack(fn)
  if not kind then
    error("fork_map: " .. text, 3)
  end
  return spawn(self, call, scope, index, kind, text, ...)
end

function Template:__get_loop()
  return self.loop
end

-- ------------------------------------------------------------- making them

-- Options of the process itself.
function own_options(opts)
  local keep_fds = opts.keep_fds
  if keep_fds == nil then
    keep_fds = {}
  end
  return assert(options.prepare {
    keep_fds = keep_fds, name = opts.name, grace = opts.grace,
  })
end

---A program, which serves.
---@param argv string[]
---@return fork_map.Template
function M.new_executed(loop, opts, call, argv)
  local self = new(loop, opts, call, core.template_exec, argv)
  -- One that could not be started says so when it is used.
  core.template_call(self.core, COMMANDS.setup, encode(0, package.path, package.cpath), false)
  return self
end

---A copy of this process as it is now.  `functions` are for jobs of the kind "kept".
---@param functions? table<string, function>
---@return fork_map.Template
function M.new_snapshot(loop, opts, call, functions)
  return new(loop, opts, call, core.template_snapshot, server.new_snapshot(functions))
end

---One forked off another, as that is when it has done what it was told.  Who makes many
---has them run(), with channels, which would be loaded each time.
---@return fork_map.Template
function M.new_forked(loop, opts, call, base)
  if base.is_forked then
    load_all(base)
  end
  base.is_forked = true
  local self = new(loop, opts, call, core.template_fork, base.core, JOBS.serve, "")
  for text, number in pairs(base.known) do
    self.known[text] = number
  end
  self.has_all = base.has_all
  return self
end

return M
