-- SPDX-License-Identifier: MIT
-- Futures, tasks and nurseries in random steps, beside a model that knows what
-- each may become; see support/model.lua.  A failure tells the seed and the step.
--
--   FORK_MAP_SEED=N           that seed again
--   FORK_MAP_MODEL_STEPS=N    so many steps, 100000 for a long run

local Model = require "support.model"
local process = require "support.process"
local steps = require "support.model_steps"
local sys = require "specs_core"

local SEED = math.tointeger(tonumber(os.getenv "FORK_MAP_SEED")) or 1
local STEPS = math.tointeger(tonumber(os.getenv "FORK_MAP_MODEL_STEPS"))
  or (sys.sanitized and 3000 or 20000)

describe("futures in random steps #slow", function()
  process.guard(before_each, after_each, 4)

  it("become what they may, and leave nothing behind", function()
    local model = Model.new(SEED)
    local ok, err = pcall(steps.run, model, STEPS)
    if not ok then
      error(("seed %d, step %d, %s: %s"):format(SEED, model.n_steps, model.last_step,
        tostring(err)), 0)
    end
    for _, what in ipairs { "done", "failed", "cancelled" } do
      assert.is_true((model.tally[what] or 0) > STEPS // 100, what)
    end
  end)
end)
