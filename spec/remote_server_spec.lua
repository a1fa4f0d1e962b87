-- SPDX-License-Identifier: MIT
-- The server of a remote template, as strangers see it.
local channels = require "fork_map.channel"
local pipes = require "support.remote_ends"
local fork_map = require "fork_map"
local process = require "support.process"
local sys = require "specs_core"
local talk = require "fork_map.remote_talk"

local close_all, cross, serve = pipes.close_all, pipes.cross, pipes.serve

-- Waiting for engines together makes this descriptor once.
fork_map.engine():pollfd()

describe("the server of remote templates", function()
  local check
  process.guard(before_each, function(found) check = found end, 3)
  after_each(function() check() end)

  -- What it says of a client that says this, beside its own greeting.
  local function serve_to(say)
    local mine, theirs = cross()
    local client = assert(channels.adopt(mine[1], mine[2]))
    local f = fork_map.spawn(function()
      return serve(theirs[1], theirs[2])
    end)
    while f:status() == "queued" do
      fork_map.engine():step(0)
    end
    close_all(theirs)
    say(client)
    client:close()
    return f:await()
  end

  local function greet(client)
    client:send_values(talk.NAME, talk.VERSION, "x", 1)
    client:recv_values()
  end

  it("ends without a word when its client has gone", function()
    assert.is_true(serve_to(greet))
  end)

  it("does not serve strangers", function()
    local ok, message = serve_to(function(client) client:send_values("hello") end)
    assert.equal(nil, ok)
    assert.matches("no template of fork_map", message)
    local _
    _, message = serve_to(function(client) client:send_values(talk.NAME, 99) end)
    assert.matches("speaks version 99", message)
  end)

  it("says what came that is not of a client", function()
    local mine, theirs = cross()
    sys.write(mine[2], "GET / HTTP/1.1\r\n\r\n")
    local ok, message = fork_map(function()
      return serve(theirs[1], theirs[2])
    end)
    assert.equal(nil, ok)
    assert.matches('the client said "GET / HTTP/1.1', message, 1, true)
    close_all(mine)
    close_all(theirs)
  end)

  it("ends at a message that is none", function()
    for _, message in ipairs {
      { "no verb" }, { 5 }, { "eval" }, { "eval", "source", 1, 1, "" },
      { "eval", "source", "x = 1", 9, "" }, { "require" }, { "run", "string:rep" },
      { "spawn", 1, "name", "string:rep" }, { "send_arg", 1, "{" },
      { "spawn", "x", "name", "string:rep", {}, false, talk.pack() },
    } do
      local ok, text = serve_to(function(client)
        greet(client)
        client:send_values(table.unpack(message))
        client:recv_values()
      end)
      assert.equal(nil, ok)
      assert.equal("a message that is none", text)
    end
  end)
end)
