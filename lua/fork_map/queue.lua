-- SPDX-License-Identifier: MIT
-- Queues: first in, first out, with room for what is added while they are gone
-- through.

local M = {}

function M.new()
  return { first = 1, last = 0 }
end

function M.push(queue, object)
  local last = queue.last + 1
  queue.last, queue[last] = last, object
end

---The first of them, of which there has to be one.
function M.pop(queue)
  local first = queue.first
  local object = queue[first]
  queue[first] = nil
  queue.first = first + 1
  return object
end

function M.is_empty(queue)
  return queue.first > queue.last
end

return M
