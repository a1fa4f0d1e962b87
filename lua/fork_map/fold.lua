-- SPDX-License-Identifier: MIT
-- Segments of a list that calls of an executor fold.  What a call gives tells in which
-- item it failed; of a call that gives nothing, nobody knows.

local core = require "fork_map.core"
local inline = require "fork_map.inline"
local travel = require "fork_map.travel"

local M = {}

---@class fork_map.FoldTask what is sent for a segment
---@field acc any
---@field first integer number of its first item
---@field n integer how many
---@field items table? nil: they are their numbers
---@field skip integer[] numbers of items to leave out
---@field kind "name"|"dump"|nil of the function, unless that goes by itself
---@field text string?

---@class fork_map.FoldAnswer
---@field acc any
---@field failure { index: integer, message: string, traceback: string?, value: any }?

---The task of the items from `first` to `last`.
---@return fork_map.FoldTask
function M.new_task(list, first, last, acc)
  local n = last - first + 1
  local items = list and { n = n } or nil
  for k = 1, list and n or 0 do
    items[k] = list[first + k - 1]
  end
  return { acc = acc, first = first, n = n, items = items, skip = {} }
end

-- What goes back of an error; its value, if that can cross.
local function describe(index, noted)
  if type(noted) ~= "table" then
    noted = { value = noted } -- there was no memory, or no stack, for a handler
  end
  local value = noted.value
  return {
    index = index, message = inline.text_of(value), traceback = noted.traceback,
    value = core.encode("auto", value) and value or nil,
  }
end

---Fold the items of a task, until one fails.
---@param step function|string "module:function"
---@param task fork_map.FoldTask
---@return fork_map.FoldAnswer
function M.run(step, task)
  if type(step) == "string" then
    step = assert(travel.unpack("name", step))
  end
  local acc, skipped = task.acc, {}
  for _, index in ipairs(task.skip) do
    skipped[index] = true
  end
  for k = 1, task.n do
    local index = task.first + k - 1
    if not skipped[index] then
      local item = index
      if task.items then
        item = task.items[k]
      end
      local ok, value = xpcall(step, inline.note_error, acc, item, index)
      if not ok then
        return { failure = describe(index, value) }
      end
      acc = value
    end
  end
  return { acc = acc }
end

---The same where no function could be captured.
---@param task fork_map.FoldTask
---@return fork_map.FoldAnswer
function M.call(task)
  return M.run(assert(travel.unpack(task.kind, task.text)), task)
end

-- Whether it is what run() gives, of this task; it may come from anywhere.
local function is_failure(task, failure)
  if type(failure) ~= "table" or type(failure.message) ~= "string"
    or math.type(failure.index) ~= "integer" then
    return false
  end
  for _, index in ipairs(task.skip) do
    if index == failure.index then
      return false
    end
  end
  return failure.index >= task.first and failure.index < task.first + task.n
end

---What a call has answered.
---@param task fork_map.FoldTask
---@param answer any
---@return fork_map.Error? err nil when `answer.acc` is what was folded
---@return integer? index of the item that failed
function M.read(task, answer)
  if type(answer) == "table" and answer.failure == nil then
    return nil
  elseif type(answer) ~= "table" or not is_failure(task, answer.failure) then
    return setmetatable({
      kind = "protocol", message = "the call for a segment gave something else",
    }, core.Error)
  end
  local failure = answer.failure
  return setmetatable({
    kind = "error", message = failure.message, value = failure.value, index = failure.index,
    traceback = type(failure.traceback) == "string" and failure.traceback or nil, attempt = 1,
  }, core.Error), failure.index
end

return M
