-- SPDX-License-Identifier: MIT
-- Values on their way through a codec and back, or not.

local assert = require "luassert"
local core = require "fork_map.core"
local values = require "support.values"

local M = {}

---The values after they have crossed.
function M.cross(codec, ...)
  local text, format, why = core.encode(codec, ...)
  if not text then
    error(("%s cannot carry %s: %s"):format(codec, format, why), 2)
  end
  return core.decode(format, text)
end

---They arrive as they were, in number too.
function M.check(codec, ...)
  values.assert_same(table.pack(...), table.pack(M.cross(codec, ...)))
end

---They are refused at `path`, for a reason that contains `why`.
function M.check_refused(codec, path, why, ...)
  local text, where, message = core.encode(codec, ...)
  assert.is_nil(text)
  assert.equal(path, where)
  assert.truthy(message:find(why, 1, true), message)
  return message
end

---`text` is refused by `decode`, not with a crash and not with a value.
function M.check_malformed(format, text, kind, why)
  local ok, message = pcall(core.decode, format, text)
  assert.is_false(ok)
  assert.truthy(message:find(kind or "^protocol: "), message)
  assert.truthy(message:find(why or "", 1, true), message)
end

return M
