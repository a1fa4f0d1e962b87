-- SPDX-License-Identifier: MIT
-- What items say beside their results, in workers and in processes of their own.
local fork_map = require "fork_map"
local process = require "support.process"

describe("in a map", function()
  process.guard(before_each, after_each, 2)

  for _, isolate in ipairs { "worker", "chunk", "item" } do
    describe(('with isolate = "%s"'):format(isolate), function()
      local opts = { workers = 2, isolate = isolate }

      it("events come in order, with the number of their item, before its result", function()
        local heard = {}
        opts.on_event = function(value, index)
          heard[index] = heard[index] or {}
          table.insert(heard[index], value)
        end
        local results = fork_map.map(20, function(i)
          fork_map.emit { "table", i }
          fork_map.emit("text " .. i)
          fork_map.emit(nil)
          fork_map.emit(i / 2)
          return { i }
        end, opts)
        for i = 1, 20 do
          assert.same({ { "table", i }, "text " .. i, i / 2 }, heard[i])
          assert.same({ i }, results[i])
        end
      end)

      it("an event of 5 MB comes whole", function()
        local heard
        opts.on_event = function(value)
          heard = value
        end
        fork_map.map(1, function()
          fork_map.emit(("x"):rep(5000000))
        end, opts)
        assert.equal(("x"):rep(5000000), heard)
      end)

      it("events without a handler are dropped", function()
        opts.on_event = nil
        assert.same({ 1, 2, n = 2 }, fork_map.map(2, function(i)
          fork_map.emit(i)
          return i
        end, opts))
      end)

      it("an event that cannot cross is an error of the item, at its line", function()
        opts.on_event = nil
        local ok, err = pcall(fork_map.map, 1, function()
          fork_map.emit { deep = { print } }
        end, opts)
        assert.is_false(ok)
        assert.matches("map_events_spec.lua:%d+: fork_map: value.deep%[1%]: a func", err.message)
      end)

      for workers = 1, 2 do
        local text = "stop() ends all of it, with what there is, with %d workers"
        it(text:format(workers), function()
          local results = fork_map.map(1000, function(i)
            if i == 5 then
              fork_map.stop { why = "five" }
            elseif i > 100 then
              fork_map(os.execute, "sleep 30")
            end
            return i
          end, { workers = workers, isolate = isolate })
          assert.same({ why = "five" }, results.stopped)
          assert.equal(1000, results.n)
          assert.is_nil(results[5])
          for i = 1, 1000 do
            -- Of two workers one may not have got round to its first item by then.
            local sure = workers == 1 and i < 5
            assert(results[i] == i and i <= 100 or results[i] == nil and not sure, i)
          end
        end)
      end
    end)
  end
end)
