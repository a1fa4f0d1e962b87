-- SPDX-License-Identifier: MIT
-- A loop that draws frame after frame, with a hundred jobs in flight: each looks
-- for a path through a maze, and takes much longer than a frame.  The engine is
-- stepped once a frame and never waits; a creature whose path is there walks it.
--
--   lua5.4 examples/game_loop.lua [FRAMES]

local fork_map = require("fork_map")

local FRAMES = math.tointeger(tonumber(arg[1] or 60)) or error("FRAMES is a number")
local JOBS, SIZE, FRAME = 100, 60, 0.004

-- A maze: walls in a grid, the same every time.
local walls, state = {}, 1
for i = 1, SIZE * SIZE do
  state = state * 16807 % 2147483647
  walls[i] = state % 100 < 30
end

---Steps of the shortest way between two fields, or nil; breadth first.
local function find_path(from, to)
  local far, queue, first = { [from] = 0 }, { from }, 1
  while queue[first] do
    local at = queue[first]
    first = first + 1
    if at == to then
      return far[at]
    end
    local x = (at - 1) % SIZE
    local left, right = x > 0 and at - 1 or 0, x < SIZE - 1 and at + 1 or 0
    for _, field in ipairs { left, right, at - SIZE, at + SIZE } do
      if walls[field] == false and not far[field] then
        far[field] = far[at] + 1
        queue[#queue + 1] = field
      end
    end
  end
end

---What a child does: think slowly, then find the path.
local function ponder(creature)
  fork_map.sleep(0.25)
  return find_path(creature.from, creature.to)
end

local engine <close> = fork_map.new { max_children = JOBS, timeout = 10 }
local creatures, n_done, n_found, most_in_flight, in_flight = {}, 0, 0, 0, 0

local function think(creature)
  in_flight = in_flight + 1
  most_in_flight = math.max(most_in_flight, in_flight)
  creature.job = engine:spawn(ponder, creature)
  creature.job:on_settle(function(job)
    in_flight, n_done = in_flight - 1, n_done + 1
    local ok, steps = job:poll()
    creature.steps = ok and steps
    n_found = n_found + (creature.steps and 1 or 0)
  end)
end

for i = 1, JOBS do
  creatures[i] = { from = 1 + i, to = SIZE * SIZE - i, x = 0 }
end

local now, longest, longest_start, n_frames = os.clock, 0, 0, 0
while n_frames < FRAMES or n_done < JOBS do
  n_frames = n_frames + 1
  local frame_began = now()

  -- Ten creatures begin to think in each of the first frames: a fork is work.
  local began = now()
  for i = 10 * n_frames - 9, math.min(JOBS, 10 * n_frames) do
    think(creatures[i])
  end
  longest_start = math.max(longest_start, now() - began)

  began = now()
  engine:step(0)
  longest = math.max(longest, now() - began)

  repeat -- what a game does in the rest of a frame
    for _, creature in ipairs(creatures) do
      if creature.steps and creature.x < creature.steps then
        creature.x = creature.x + 1
      end
    end
  until now() - frame_began >= FRAME
end

print(("%d frames, %d of %d paths found, %d jobs in flight at most"):format(n_frames, n_found,
  JOBS, most_in_flight))
print(("longest step %.2f ms, longest start of ten %.2f ms of processor time"):format(
  1000 * longest, 1000 * longest_start))
