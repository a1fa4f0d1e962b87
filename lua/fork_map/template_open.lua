-- SPDX-License-Identifier: MIT
-- How engines come to templates: the programs that serve, and the default template, off
-- which those are forked that are not told where from.

local async = require "fork_map.async"
local connected = require "fork_map.connected"
local core = require "fork_map.core"
local engines = require "fork_map.engine"
local loops = require "fork_map.loop"
local options = require "fork_map.options"
local tasks = require "fork_map.task"
local templates = require "fork_map.template"

local M = {}

-- How an interpreter is told to serve; the number of the socket comes last.
local PROGRAM = "fork-map-template"
local SERVE = "package.path,package.cpath=%q,%q require('fork_map.server').serve(arg[#arg])"

-- The program of this process, if it is a Lua interpreter.
local function find_interpreter()
  local path = core.own_program()
  if path and path:match("([^/]+)$"):match("^lua[%d.]*$") then
    return path
  end
end

-- The program that serves: what the environment says, the interpreter that runs this,
-- or the one that was installed.
local function find_program()
  local program = os.getenv "FORK_MAP_TEMPLATE"
  if program and program ~= "" then
    return { program, package.path, package.cpath }
  end
  local interpreter = find_interpreter()
  if interpreter then
    local code = SERVE:format(package.path, package.cpath):gsub("\n", "n")
    return { interpreter, "-e", code, "-" }
  end
  return { PROGRAM, package.path, package.cpath }
end
-- ------------------------------------------------------------- the default one

-- Seconds to wait before another default template is made, when the last ones died.
local PAUSE_FIRST, PAUSE_MOST = 0.01, 1

-- What an engine has of its default template: the template, deaths in a row, and when
-- the last one was made.
---@class fork_map.DefaultTemplate
---@field template fork_map.Template?
---@field n_deaths integer
---@field made_at number

-- One that dies at once dies again: each comes later than the one before.
local function pause(engine, default)
  local is_quick = core.now() - default.made_at < PAUSE_MOST
  default.n_deaths = is_quick and default.n_deaths + 1 or 0
  local loop = async.get_loop(engine)
  if default.n_deaths > 1 and not loops.find_refusal(loop) then
    tasks.sleep(loop, math.min(PAUSE_FIRST * 2 ^ (default.n_deaths - 2), PAUSE_MOST))
  end
end

local function is_usable(default)
  return default and default.template and templates.find_error(default.template) == nil
end

local function set_default(engine, template)
  local default = engine.default_template or { n_deaths = 0 }
  default.template, default.made_at = template, core.now()
  engine.default_template = default
  return template
end

-- That of which all others are forked that are not told where from.
local function get_default(engine)
  local default = engine.default_template
  if is_usable(default) then
    return default.template
  elseif default then
    pause(engine, default)
  end
  local call = assert(templates.new_call {})
  return set_default(engine,
    templates.new_executed(async.get_loop(engine), {}, call, find_program()))
end

---The default template is a copy of this process as it is now.
---@param engine fork_map.Engine
function M.early(engine)
  if not is_usable(engine.default_template) then
    local call = assert(templates.new_call {})
    set_default(engine, templates.new_snapshot(async.get_loop(engine), {}, call))
  end
end

local function make(engine, opts)
  local own, checked = options.check_template(opts == nil and {} or opts)
  if not own then
    return nil, checked
  end
  local loop = async.get_loop(engine)
  if own.connect then
    return connected.open(loop, checked, own.connect)
  end
  local call, text = templates.new_call(checked)
  if not call then
    return nil, text
  elseif own.from == "fork" then
    return templates.new_snapshot(loop, checked, call)
  elseif own.from == "exec" or own.exec then
    return templates.new_executed(loop, checked, call, own.exec or find_program())
  end
  return templates.new_forked(loop, checked, call, get_default(engine))
end

---A template: a small process of its own to fork from.  Without options it is forked
---off the default template of the engine, a fresh interpreter that is executed when it
---is needed first, and kept.
---@param opts? fork_map.TemplateOptions
---@return fork_map.Template
function engines.Engine:template(opts)
  local made, text = make(self, opts)
  if not made then
    error(text, 2)
  end
  return made
end

return M
