-- SPDX-License-Identifier: MIT
-- A pre-forked echo server: ten workers wait for connections at one socket, and one
-- that dies is replaced.  Each serves one client at a time, and begins by saying who
-- it is.
--
--   lua5.4 examples/prefork_echo.lua PORT    serves at 127.0.0.1 until it is interrupted
--   lua5.4 examples/prefork_echo.lua         serves at some port, is its own client,
--                                            and ends
--
-- Lua has no sockets: this needs luasocket (Debian: lua-socket).

local fork_map = require("fork_map")

local is_there, socket = pcall(require, "socket")
if not is_there then
  io.stderr:write("prefork_echo.lua needs luasocket\n")
  os.exit(77)
end

local N_WORKERS = 10

--------------------------------------------------------------------------------
-- What a worker does.  It is run in a process forked off the template, and captures
-- nothing: its arguments are the channel to the server, which it makes no use of, and
-- what was sent.

local function serve(_, fd)
  local sockets = require("socket")
  local stat <close> = assert(io.open("/proc/self/stat"))
  local hello = ("worker %d\n"):format(stat:read("n"))
  -- A socket of luasocket for a descriptor that listens already.
  local listener = sockets.tcp()
  listener:setfd(fd)
  assert(listener:listen())

  local function echo(client)
    client:send(hello)
    repeat
      local line = client:receive("*l")
    until not line or not client:send(line .. "\n")
    client:close()
  end

  while true do
    local client = listener:accept()
    if client then
      echo(client)
    end
  end
end

--------------------------------------------------------------------------------
-- The server, which accepts nothing itself.

---Keep one worker: another one takes the place of each that ends, which the end of its
---channel tells.  One that dies at once, again and again, comes a little later each time.
local function keep_worker(template)
  local pause = 0
  while true do
    local began = os.time()
    local channel = template:fork():run(serve)
    channel:recv()
    channel:close()
    pause = os.time() - began < 2 and math.min(2 * pause + 0.01, 1) or 0
    fork_map.sleep(pause)
  end
end

---Start the workers at this socket, with luasocket loaded once for all.
local function start(listener)
  local template = fork_map.template { grace = 0 }
  template:require("socket"):send_fd(listener)
  for _ = 1, N_WORKERS do
    fork_map.task(keep_worker, template)
  end
  template:wait()
end

--------------------------------------------------------------------------------
-- A client, which runs in a child.

local function connect(port)
  local connection = assert(socket.connect("127.0.0.1", port))
  connection:settimeout(30)
  local hello = assert(connection:receive("*l"))
  return connection, assert(hello:match("^worker (%d+)$"), hello)
end

---As many connections at once as there are workers, each of which serves one: so each
---has to answer.  Returns who has.
local function meet_all(port)
  local connections, pids = {}, {}
  for i = 1, N_WORKERS do
    connections[i], pids[i] = connect(port)
  end
  for i, connection in ipairs(connections) do
    local line = ("line %d"):format(i)
    assert(connection:send(line .. "\n"))
    assert(connection:receive("*l") == line)
  end
  for _, connection in ipairs(connections) do
    connection:close()
  end
  return pids
end

local function count_different(pids)
  local n, seen = 0, {}
  for _, pid in ipairs(pids) do
    n = n + (seen[pid] and 0 or 1)
    seen[pid] = true
  end
  return n, seen
end

-- The client is awaited, as workers are replaced while the server waits for something.
local function try(port)
  local client = fork_map.with { timeout = 60 }
  local pids = client:spawn(meet_all, port):await()
  print(("%d workers have answered"):format((count_different(pids))))

  os.execute("kill -KILL " .. pids[1])
  local n, seen = count_different(client:spawn(meet_all, port):await())
  print(("one was killed, and %d have answered"):format(n))
  print(seen[pids[1]] and "it was still there" or "the dead one was not among them")
end

--------------------------------------------------------------------------------

local listener = assert(socket.bind("127.0.0.1", tonumber(arg[1] or 0)))
start(listener)
if arg[1] then
  print(("%d workers listen at port %s"):format(N_WORKERS, arg[1]))
  while true do
    fork_map.sleep(3600)
  end
else
  local _, port = listener:getsockname()
  try(port)
end
