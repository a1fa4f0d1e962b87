-- SPDX-License-Identifier: MIT
-- Mutants of what lies between two ends: watchers, sockets, channels, templates behind a
-- connection.  See mutants.lua.

return {
  {
    name = "room for the padding of descriptors",
    edits = { { "src/os/socket.c", "room > 0 ? CMSG_LEN(room * sizeof *ret_fds) : 0;",
      "room > 0 ? CMSG_SPACE(room * sizeof *ret_fds) : 0;" } },
    tests = {
      "test_socket more_descriptors_than_expected_are_a_protocol_error_and_closed",
    },
  },
  {
    name = "descriptors of a message that is refused stay open",
    edits = { { "src/os/socket.c", "        close_all(ret_fds, *n_fds);\n", "" } },
    tests = {
      "test_socket more_descriptors_than_expected_are_a_protocol_error_and_closed",
      "test_socket a_message_that_is_longer_than_expected_is_a_protocol_error",
    },
  },
  {
    name = "events of another descriptor in the same slot",
    edits = {
      { "src/engine/watcher.c", "make_tag(engine, slot) == tag)",
        "(uint32_t)make_tag(engine, slot) == (uint32_t)tag)" },
      { "src/engine/watcher.c", "watcher->since != engine->n_batches && watcher->events",
        "watcher->events" },
    },
    tests = { "test_watcher an_event_of_a_slot_that_another_has_taken_is_not_heard" },
  },
  {
    name = "memory for what a head announces",
    edits = { { "src/wire/stream.c", "    n = have > PIECE_FIRST ? have : PIECE_FIRST;\n",
      "    n = PIECE_FIRST + stream->head.len;\n" } },
    tests = { "test_stream a_length_is_bounded_and_costs_nothing_until_bytes_come" },
  },
  {
    name = "descriptors beside any frame",
    edits = { { "src/process/link.c",
      "(in->head.type == FM__STREAM_FD) != (link->got_fd >= 0))",
      "in->head.type == FM__STREAM_FD && link->got_fd < 0)" } },
    tests = { "test_link descriptors_without_their_frame_are_a_protocol_error_and_closed" },
  },
  {
    name = "the end within a frame is an end",
    edits = { { "src/process/link.c", "return fm__stream_is_between(in) ? 0 : FM_EPROTOCOL;",
      "return 0;" } },
    tests = { "test_link an_end_within_a_frame_is_a_protocol_error" },
  },
  {
    name = "a pipe that nobody reads is a signal",
    edits = { { "src/os/signals.c", "        (void)fm__sys.sigwait(&pipe, &sig);\n",
      "        (void)&sig;\n" } },
    tests = { "test_link a_dead_peer_is_no_signal_and_one_of_the_hosts_stays" },
  },
  {
    name = "the future of a wait is anybody's",
    edits = { { "lua/fork_map/wait_fd.lua",
      "  local f = futures.new(cell)\n  local is_ready = loops.wait(f, cell, deadline)\n",
      "  local is_ready = loops.wait(futures.new(cell), cell, deadline)\n" } },
    tests = { "wait_fd_spec.lua is not disturbed by the collector" },
  },
  {
    name = "code for whoever is there",
    edits = { { "lua/fork_map/remote.lua",
      ' and not (self.state == "starting" and self.has_greeted)', "" } },
    tests = { "remote_spec.lua does not send code before it knows who is there" },
  },
  {
    name = "answers that nobody expects",
    edits = { { "lua/fork_map/remote.lua",
      '    fail(self, "protocol", "the template has sent a message that nobody expects")\n', "" } },
    tests = { "remote_spec.lua takes no answer that nobody expects" },
  },
  {
    name = "reading on after run()",
    edits = { { "lua/fork_map/remote.lua", "    self.is_taken = self.is_leaving\n", "" } },
    tests = { "remote_spec.lua leaves to the channel what comes right behind the answer" },
  },
}
