-- SPDX-License-Identifier: MIT
rockspec_format = "3.0"
package = "fork_map"
version = "scm-1"
source = {
  -- `luarocks make` builds the tree that it is called in and never looks here.
  url = "git+file://.",
}
description = {
  summary = "Call a function in a forked child and get its results or a typed error",
  detailed = [[
fork_map(fn, ...) is like fn(...), run in a forked child: upvalues, userdata
and modules are simply there, all results come back exactly, and a crash, a
timeout or a limit is an error that you can catch.]],
  license = "MIT",
  labels = { "process", "parallelism", "linux" },
}
supported_platforms = { "linux" }
dependencies = {
  "lua >= 5.4, < 5.5",
}
build = {
  type = "builtin",
  modules = {
    ["fork_map.core"] = {
      -- Every layer with the facilities of Linux, as src/CMakeLists.txt.
      sources = {
        "src/os/bell_eventfd.c",
        "src/os/bury_tombstone.c",
        "src/os/clock.c",
        "src/os/fds.c",
        "src/os/forking.c",
        "src/os/filter.c",
        "src/os/memory.c",
        "src/os/pid_pidfd.c",
        "src/os/poller_epoll.c",
        "src/os/proc.c",
        "src/os/signals.c",
        "src/os/sys.c",
        "src/os/word_futex.c",
        "src/wire/binary.c",
        "src/wire/binary_write.c",
        "src/wire/buffer.c",
        "src/wire/frame.c",
        "src/wire/inbox.c",
        "src/wire/json_read.c",
        "src/wire/json_string.c",
        "src/wire/json_write.c",
        "src/wire/number_format.c",
        "src/wire/number_read.c",
        "src/wire/powers.c",
        "src/wire/ring.c",
        "src/wire/utf8.c",
        "src/process/channel.c",
        "src/process/child.c",
        "src/process/flight.c",
        "src/process/lifeline.c",
        "src/process/limits.c",
        "src/process/locks.c",
        "src/process/outbox.c",
        "src/process/output.c",
        "src/process/stdio.c",
        "src/process/worker.c",
        "src/engine/attempt.c",
        "src/engine/close.c",
        "src/engine/engine.c",
        "src/engine/entry.c",
        "src/engine/error.c",
        "src/engine/future.c",
        "src/engine/home.c",
        "src/engine/hooks.c",
        "src/engine/job.c",
        "src/engine/ledger.c",
        "src/engine/list.c",
        "src/engine/map.c",
        "src/engine/map_child.c",
        "src/engine/member.c",
        "src/engine/outcome.c",
        "src/engine/prepare.c",
        "src/engine/spans.c",
        "src/engine/trace.c",
        "src/lua/call.c",
        "src/lua/codec.c",
        "src/lua/engine.c",
        "src/lua/error.c",
        "src/lua/future.c",
        "src/lua/heap.c",
        "src/lua/hooks.c",
        "src/lua/job.c",
        "src/lua/leave.c",
        "src/lua/module.c",
        "src/lua/options.c",
        "src/lua/recorder.c",
        "src/lua/values.c",
        "src/lua/values_foreign.c",
        "src/lua/values_read.c",
        "src/lua/values_read_json.c",
        "src/lua/values_read_lua.c",
        "src/lua/values_write.c",
        "src/lua/values_write_json.c",
        "src/lua/values_write_lua.c",
      },
      defines = { "_GNU_SOURCE" },
      incdirs = { "src" },
      libraries = { "dl", "pthread", "rt" },
    },
    -- The Lua half.
    fork_map = "lua/fork_map.lua",
    ["fork_map.engine"] = "lua/fork_map/engine.lua",
    ["fork_map.error"] = "lua/fork_map/error.lua",
    ["fork_map.options"] = "lua/fork_map/options.lua",
  },
  copy_directories = { "docs" },
}
