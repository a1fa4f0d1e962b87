-- SPDX-License-Identifier: MIT
local fork_map = require "fork_map"
local process = require "support.process"
local sys = require "specs_core"

local failure = process.failure

describe("fork_map.Error", function()
  process.guard(before_each, after_each)

  describe("kind spawn", function()
    it("has name and text of the error that fork failed with", function()
      -- In a child that is no longer root and may have no process more.
      local kind, message = fork_map(function()
        fork_map(function() end)
        sys.setuid(65534)
        sys.setrlimit("nproc", 0)
        local err = failure(fork_map, function() end)
        return err.kind, err.message
      end)
      assert.equal("spawn", kind)
      assert.matches("fork", message)
      assert.matches("EAGAIN", message)
      assert.matches("Resource temporarily unavailable", message)
    end)

    it("is told at every limit on descriptors below the one that suffices", function()
      local values, failures = fork_map(function()
        local function count()
          local n, highest = 0, 0
          for fd in pairs(sys.fds()) do
            n, highest = n + 1, math.max(highest, fd)
          end
          return n, highest
        end

        local values, failures = 0, 0
        local before, highest = count()
        for limit = 3, highest + 30 do
          sys.setrlimit("nofile", limit)
          local ok, result = pcall(function()
            local engine <close> = fork_map.new { output = "capture" }
            return engine(function() return "value" end)
          end)
          sys.setrlimit("nofile", 1000)
          assert.equal(before, (count()))
          if ok then
            assert.equal("value", result)
            values = values + 1
          else
            assert.matches("Too many open files", tostring(result))
            failures = failures + 1
          end
        end
        return values, failures
      end)
      assert.is_true(values > 5)
      assert.is_true(failures > 5)
    end)

    it("leaves the engine able to go on", function()
      assert.same({ "spawn", 1 }, { fork_map(function()
        -- Pipes for what the child prints cannot be made.
        local engine = fork_map.new { output = "capture" }
        engine(function() end)
        sys.setrlimit("nofile", 3)
        local err = failure(engine, function() end)
        sys.setrlimit("nofile", 1000)
        return err.kind, engine(function() return 1 end)
      end) })
    end)

    it("is a child of a child deeper than max_depth", function()
      local engine = fork_map.new { max_depth = 2 }
      local function descend()
        local inner <close> = fork_map.new { max_depth = 2 }
        local ok, err = pcall(inner, descend)
        return ok and err + 1 or (err.kind == "spawn" and 1 or err.message)
      end
      assert.equal(2, engine(descend))
      engine:close()
    end)
  end)
end)
