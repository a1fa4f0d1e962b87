-- SPDX-License-Identifier: MIT
-- Where the workers of a pool come from: all of them, also later ones, from one
-- template, so that they see the same.  That is a snapshot of the program, made with the
-- pool, or a template that the user has made.  Where there are no templates they are
-- forked off the program as it is then.
--
-- A snapshot that dies takes no worker along.  The next worker comes from a new one, of
-- the program as it is then; one of the user's is the user's affair.

local cells = require "fork_map.cell"
local core = require "fork_map.core"
local serving = require "fork_map.serve"

local M = {}

---@class fork_map.CrewHome
---@field package hire fun(self, crew, worker): fork_map.core.Future
---@field package close fun(self) no more workers are needed
---@field package join fun(self, is_shielded: boolean?) wait until nothing of it is left

-- ------------------------------------------------------------------ direct forks

local Direct = {}
Direct.__index = Direct

function Direct:hire(crew, worker)
  return core.hire(crew.loop.core, crew.prepared, worker, serving.serve, self.spec)
end

function Direct:close() -- luacheck: no self
end

Direct.join = Direct.close

-- ---------------------------------------------------------------------- snapshots

local Snapshot = {}
Snapshot.__index = Snapshot

-- The pool's file is loaded before that of templates.
local function get_templates()
  return require "fork_map.template"
end

local function make_snapshot(self, crew)
  local spec = self.spec
  self.template = get_templates().new_snapshot(crew.loop, self.opts, nil, {
    codec = crew.codec,
    pool = function()
      return serving.serve(spec)
    end,
  })
end

function Snapshot:hire(crew, worker)
  local templates = get_templates()
  if templates.find_error(self.template) then
    self.template:close()
    make_snapshot(self, crew)
  end
  local codec = type(crew.codec) == "string" and crew.codec
  return self.template:__hire_kept(crew.prepared, codec, worker, "pool")
end

function Snapshot:close()
  self.template:close()
end

function Snapshot:join(is_shielded)
  get_templates().join(self.template, is_shielded)
end

-- ------------------------------------------------------------- given templates

local Given = {}
Given.__index = Given

function Given:hire(crew, worker)
  return self.template:__hire(crew.prepared, crew.codec, worker, "fork_map.serve:serve", self.spec)
end

function Given:close() -- luacheck: no self
end

Given.join = Given.close

-- ------------------------------------------------------------------- making one

---@param crew fork_map.Crew
---@param opts table of the pool
---@return fork_map.CrewHome
function M.new(crew, opts)
  if opts.template then
    opts.template:__expect_hires()
    return setmetatable({ template = opts.template, spec = crew.spec }, Given)
  end
  local self = setmetatable({ spec = crew.spec, opts = {
    name = opts.name, grace = opts.grace, keep_fds = opts.keep_fds or false,
  } }, Snapshot)
  local ok, err = pcall(make_snapshot, self, crew)
  if ok then
    return self
  elseif err.kind == "spawn" and not core.has_templates then
    return setmetatable({ spec = crew.spec }, Direct)
  end
  error(cells.to_error(err), 0)
end

return M
