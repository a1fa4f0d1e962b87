-- SPDX-License-Identifier: MIT
-- Templates elsewhere, as users have them: the face of fork_map/remote.lua.

local options = require "fork_map.options"
local remotes = require "fork_map.remote"
local talk = require "fork_map.remote_talk"

local M = {}

---A template behind a connection, where no descriptor can be passed: it refuses fork()
---and send_fd(), and runs one call at a time.
---@class fork_map.ConnectedTemplate: fork_map.Executor
---@field package remote fork_map.Remote
---@field package opts table options of its calls
---@field package call table what its calls are made with
local Connected = { __name = "fork_map.Template", __ahead = 1, workers = 1 }
Connected.__index = Connected

-- What a verb of the remote gave; misuse is raised at the caller's caller.
local function finish(verb, value, text)
  if value == nil and text ~= nil then
    error(("fork_map: template:%s: %s"):format(verb, text), 3)
  end
  return value
end

for _, verb in ipairs { "require", "eval", "send_arg", "send_fd", "fork" } do
  Connected[verb] = function(self, ...)
    finish(verb, self.remote[verb](self.remote, ...))
    return self
  end
end

for _, verb in ipairs { "run", "wait" } do
  Connected[verb] = function(self, ...)
    return (finish(verb, self.remote[verb](self.remote, ...)))
  end
end

for _, verb in ipairs { "pid", "status" } do
  Connected[verb] = function(self)
    return self.remote[verb](self.remote)
  end
end

function Connected:close()
  self.remote:close()
end

Connected.__close = Connected.close

function Connected:__prepare(opts)
  return talk.check_options(options.merge(self.opts, opts))
end

function Connected:__spawn(...)
  local f, text = self.remote:spawn(...)
  if not f then
    error("fork_map: " .. text, 0)
  end
  return f
end

function Connected:__get_loop()
  return self.remote.loop
end

---A future of `fn(...)`, which runs there.
---@param fn function|string
---@param ... any
---@return fork_map.Future
function Connected:spawn(fn, ...)
  return (finish("spawn", self.remote:spawn(self.call, nil, nil, fn, ...)))
end

---@param loop fork_map.Loop
---@param opts table options of its calls, checked
---@param connect any
---@return fork_map.ConnectedTemplate?
---@return string? text what is wrong with the options
function M.open(loop, opts, connect)
  local remote, err = remotes.open(loop, connect)
  if not remote then
    error(err, 0)
  end
  local call, text = talk.check_options(opts)
  if not call then
    remote:close()
    return nil, text
  end
  return setmetatable({ remote = remote, opts = opts, call = call }, Connected)
end

return M
