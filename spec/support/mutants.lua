-- SPDX-License-Identifier: MIT
-- The remedies that spec/mutants.sh takes out, one at a time.
--
-- `edits` are {file, text that is there once, text in its place}; `tests` are
-- those that must notice, as "test_file name" of a C test or "file_spec.lua
-- filter" of Lua specs.  Those of maps are in mutants_map.lua, of what lies between
-- two ends in mutants_channel.lua.

local of_channels = require "support.mutants_channel"
local of_maps = require "support.mutants_map"

local mutants = {
  {
    name = "no gate",
    edits = { { "src/process/flight.c", "    for (;;) {\n        uint32_t gate = FM__GATE_SHUT;",
      "    for (;;) {\n        uint32_t gate = FM__GATE_SHUT;\n\n        return 0;" } },
    tests = { "test_start a_job_does_not_begin_before_its_parent_is_ready_for_its_end" },
  },
  {
    name = "no lifeline",
    edits = { { "src/process/lifeline.c", "if (set_owner(lifeline->read_fd, group) < 0 ||",
      "if (group == 0 || set_owner(lifeline->read_fd, 0) < 0 ||" } },
    tests = {
      "test_child many_children_end_when_their_host_is_killed",
      "test_engine when_the_host_is_killed_its_children_and_theirs_are_gone",
    },
  },
  {
    name = "children keep the lifelines of others",
    edits = { { "src/os/fds.c", "            fm__fd_bury(entries[i].fd);\n            continue;",
      "            continue;" } },
    tests = { "test_child many_children_end_when_their_host_is_killed" },
  },
  {
    name = "no anchor",
    edits = { { "src/process/lifeline.c",
      "    return set_owner(lifeline->read_fd, group) < 0 ? -errno : 0;",
      "    return set_owner(lifeline->read_fd, 0 * group) < 0 ? -errno : 0;" } },
    tests = { "test_strangers a_child_whose_own_lifeline_is_lost_ends_with_its_host" },
  },
  {
    name = "lifelines let go of in any order",
    edits = { { "src/process/lifeline.c", "    fm__fd_bury_first(fds[1]);\n", "" } },
    tests = { "test_strangers who_is_forked_lets_go_of_the_write_ends_of_lifelines_first" },
  },
  {
    name = "no tombstones",
    edits = { { "src/os/bury_tombstone.c",
      "if (tombstone < 0 || fm__sys.dup3(tombstone, fd, O_CLOEXEC) < 0)",
      "if (tombstone < 0 || fm__sys.dup3(tombstone, fd, O_CLOEXEC) != -2)" } },
    tests = { "test_child a_stale_file_of_the_host_does_not_write_into_a_new_one" },
  },
  {
    name = "descriptors not buried",
    edits = { { "src/process/child.c",
      "rc = fm__fds_bury_others(opts->keep_fds, opts->n_keep_fds);", "rc = 0;" } },
    tests = { "test_options a_descriptor_that_is_not_kept_is_dead_and_its_number_taken" },
  },
  {
    name = "end of the pipe instead of the pidfd",
    edits = { { "src/os/pid_pidfd.c", "            return rc > 0;", "            return false;" } },
    tests = { "test_outcome a_grandchild_that_holds_descriptors_delays_nothing_and_ends" },
  },
  {
    name = "no last look into the ring",
    edits = { { "src/engine/attempt.c",
      "    future->is_gone = true;\n    fm__attempt_pump(future, now);",
      "    future->is_gone = true;" } },
    tests = { "test_outcome a_job_gives_back_what_it_wrote" },
  },
  {
    name = "no signal mask around the fork",
    edits = { { "src/os/signals.c", "(void)sigfillset(&all);", "(void)sigemptyset(&all);" } },
    tests = { "test_start a_signal_right_after_the_fork_runs_no_handler_of_the_host" },
  },
  {
    name = "mask of the host not restored",
    edits = { { "src/os/signals.c", "(void)fm__sys.pthread_sigmask(SIG_SETMASK, old, NULL);",
      "(void)old;" } },
    tests = { "test_child a_child_blocks_nothing_and_the_hosts_mask_stays_as_it_was" },
  },
  {
    name = "mask of the child not emptied",
    edits = { { "src/process/child.c", "        rc = fm__signals_open();", "        rc = 0;" } },
    tests = { "test_child a_child_blocks_nothing_and_the_hosts_mask_stays_as_it_was" },
  },
  {
    name = "no signal reset",
    edits = { { "src/process/child.c", "    rc = fm__signals_reset();", "    rc = 0;" } },
    tests = {
      "test_child handlers_of_the_host_do_not_run_in_a_child",
      "test_child a_child_blocks_nothing_and_the_hosts_mask_stays_as_it_was",
    },
  },
  {
    name = "no copy before parse",
    edits = {
      { "src/wire/inbox.c",
        "    memcpy(&inbox->head, inbox->head_bytes, sizeof inbox->head);\n", "" },
      { "src/wire/inbox.c", "            memcpy(inbox->head_bytes + inbox->have, p, n);",
        "            memcpy(inbox->head_bytes + inbox->have, p, n);\n"
        .. "            memcpy(&inbox->head, p, sizeof inbox->head);\n"
        .. "            if (fm__frame_check(&inbox->head, inbox->job) < 0)\n"
        .. "                return broken(inbox, FM_EPROTOCOL);\n"
        .. "            for (size_t i = 0; i < sizeof inbox->head; i++)\n"
        .. "                ((unsigned char *)&inbox->head)[i] =\n"
        .. "                    ((const volatile unsigned char *)p)[i];" },
      { "src/wire/inbox.c",
        "    return fm__frame_check(&inbox->head, inbox->job);", "    return 0;" },
    },
    tests = { "test_inbox a_head_that_changes_while_it_is_read_is_judged_as_it_was_taken" },
  },
  {
    name = "no check of a frame's length",
    edits = { { "src/wire/frame.c",
      "        head->len > lengths[head->type].max)", "        false)" } },
    tests = { "test_inbox lengths_that_lie_are_refused_before_memory_is_taken" },
  },
  {
    name = "no check of a frame's job",
    edits = { { "src/wire/frame.c", "head->job != job || ", "" } },
    tests = { "test_inbox a_frame_of_another_job_is_refused",
      "test_hostile a_head_with_any_lie_is_a_protocol_error_and_no_more" },
  },
  {
    name = "no check of the ring's tail",
    edits = { { "src/wire/ring.c",
      "    if (used > ring->size)\n        return FM_EPROTOCOL;\n", "" } },
    tests = { "test_ring a_writer_that_lies_about_its_tail_is_found_out",
      "error_spec.lua fills what it shares with the caller with 0xff" },
  },
  {
    name = "no check of END",
    edits = { { "src/wire/inbox.c",
      "    if (total != inbox->len)\n        return FM_EPROTOCOL;\n", "" } },
    tests = { "test_inbox an_end_that_counts_other_bytes_than_came_is_refused" },
  },
  {
    name = "a value without END",
    edits = { { "src/engine/outcome.c",
      'set(future, FM_PROTOCOL, "the child ended in the middle of its result");',
      "{\n        set(future, FM_VALUE, NULL);\n        set_data(future);\n    }" } },
    tests = { "test_hostile a_result_cut_at_any_byte_is_the_error_of_how_its_process_ended" },
  },
  {
    name = "reading after END",
    edits = { { "src/wire/inbox.c",
      "    while (rc == 0 && len > 0 && inbox->ending == FM__ENDING_OPEN) {",
      "    while (rc == 0 && len > 0) {" } },
    tests = { "test_inbox nothing_is_read_after_the_end" },
  },
  {
    name = "no end for who stays after END",
    edits = { { "src/engine/attempt.c",
      "    if (future->state == FM_DRAINING && future->stop != FM__STOP_FORCED) {",
      "    if (future->state == FM_SETTLED) {" } },
    tests = { "test_hostile a_whole_result_counts_whatever_is_said_or_done_after_it" },
  },
  {
    name = "no group kill at the end",
    edits = { { "src/os/pid_pidfd.c", "    rc = fm__pid_signal_group(pid, SIGKILL);",
      "    rc = fm__pid_signal_group(pid, 0);" } },
    tests = { "test_start what_a_killed_child_has_started_ends_with_it" },
  },
  {
    name = "no process group",
    edits = {
      { "src/process/child.c", "    if (fm__sys.setpgid(0, 0) < 0)\n        return -errno;\n", "" },
      { "src/engine/start.c", "    (void)fm__sys.setpgid(pid, pid);\n", "" },
    },
    tests = { "test_start what_a_killed_child_has_started_ends_with_it" },
  },
  {
    name = "a number signalled after its process was reaped",
    edits = { { "src/engine/future.c", "    if (future->is_gone)\n        return;\n", "" } },
    tests = { "test_callbacks no_number_is_signalled_after_its_process_was_reaped" },
  },
  {
    name = "no SIGKILL after the grace",
    edits = { { "src/engine/attempt.c",
      "        fm__future_stop(future, FM__STOP_FORCED, future->stop_kind, now);\n        break;",
      "        future->next_at = FM__NEVER;\n        break;" } },
    tests = { "test_start a_cancelled_child_that_ignores_it_is_killed_after_its_grace" },
  },
  {
    name = "no SIGCONT",
    edits = { { "src/engine/future.c",
      "        send(future, SIGCONT); /* a stopped process hears nothing else */\n", "" } },
    tests = { "test_start a_stopped_child_hears_that_it_is_asked_to_end" },
  },
  {
    name = "a cancel ends one attempt only",
    edits = { { "src/engine/attempt.c",
      "!future->engine->closed && !future->is_cancelled &&",
      "!future->engine->closed && future->stop_kind != FM_CANCELLED &&" } },
    tests = {
      "test_retries a_job_that_is_cancelled_in_the_grace_of_its_timeout_is_not_tried_again",
      "test_retries a_job_that_is_cancelled_when_its_failure_is_whole_is_not_tried_again",
    },
  },
  {
    name = "no lifeline to let go of",
    edits = { { "src/engine/attempt.c",
      "        fm__channel_give(engine, parked->channel, false);\n        fm__sys.free(parked);",
      "        fm__sys.free(parked);" } },
    tests = { "test_parked an_engine_that_closes_leaves_a_parked_child_to_the_kernel" },
  },
  {
    name = "no start deadline",
    edits = { { "src/engine/start.c", "#define START_NS (5 * FM__NS_PER_S)",
      "#define START_NS (5000 * FM__NS_PER_S)" } },
    tests = { "test_start a_child_that_hangs_in_its_start_is_ended_and_told_apart" },
  },
  {
    name = "no backstop timer",
    edits = { { "src/process/limits.c", "return fm__clock_arm(CLOCK_MONOTONIC, SIGKILL, ns, 0);",
      "return ns > 0 ? 0 : -EINVAL;" } },
    tests = { "error_spec.lua kills the child even when nobody steps the engine" },
  },
  {
    name = "no purge of buffered output",
    edits = { { "src/process/child.c", "    fm__stdio_purge();\n", "" } },
    tests = { "test_outcome what_the_host_had_buffered_is_written_once" },
  },
  {
    name = "no exit handler",
    edits = { { "src/process/child.c", "return on_exit(on_exit_called, child) == 0 ? 0 : -ENOMEM;",
      "return child ? 0 : (int)(intptr_t)on_exit_called;" } },
    tests = { "test_outcome no_exit_handler_of_the_host_runs_in_a_child",
      "test_outcome every_way_to_exit_tells_its_code" },
  },
  {
    name = "exit() instead of _exit()",
    edits = { { "src/os/sys.c", ".exit_now = _exit,", ".exit_now = exit,  " } },
    tests = { "test_outcome no_exit_handler_of_the_host_runs_in_a_child",
      "test_child a_host_that_reads_a_file_sees_each_line_once" },
  },
  {
    name = "standard input kept",
    edits = { { "src/process/child.c", "    if (rc == 0 && !keeps_stdin(opts)) {",
      "    if (rc == 0 && opts->nice == 99 && !keeps_stdin(opts)) {" } },
    tests = { "test_options standard_input_of_a_child_is_empty" },
  },
  {
    name = "descriptors of ours below 3",
    edits = { { "src/os/fds.c", "    if (fd < FM__FD_LOWEST) {", "    if (fd < 0) {" } },
    tests = { "test_fds a_host_without_standard_streams_gets_result_and_output" },
  },
  {
    name = "no MADV_DONTFORK",
    edits = { { "src/os/memory.c", "int advice = inherit ? MADV_DOFORK : MADV_DONTFORK;",
      "int advice = inherit ? MADV_DOFORK : MADV_DOFORK;" } },
    tests = { "test_forking an_offer_reaches_the_child_and_no_later_one",
      "test_forking an_offer_does_not_reach_a_child_of_the_child" },
  },
  {
    name = "no look at shared memory",
    edits = { { "src/engine/bind.c", "return fm__memory_is_shared(p) ? FM_ESHARED : 0;",
      "return p ? 0 : FM_ESHARED;" } },
    tests = { "test_engine an_engine_is_refused_in_memory_that_children_share" },
  },
  {
    name = "no generation check",
    edits = { { "src/engine/entry.c",
      "    return engine->pid == fm__sys.getpid() &&\n"
      .. "           engine->generation == fm__fds_generation();",
      "    return engine->pid == fm__sys.getpid();" } },
    tests = { "test_start an_engine_is_closed_in_a_process_that_has_its_makers_number" },
  },
  {
    name = "no process id check",
    edits = { { "src/engine/entry.c",
      "    return engine->pid == fm__sys.getpid() &&\n"
      .. "           engine->generation == fm__fds_generation();",
      "    return engine->generation == fm__fds_generation();" } },
    tests = { "test_start an_engine_is_closed_in_a_process_that_no_handler_of_fork_has_seen" },
  },
  {
    name = "no question to the kernel for a stolen status",
    edits = { { "src/os/pid_pidfd.c", "fm__sys.pidfd_get_info(pid->fd, &info) < 0)",
      "fm__sys.pidfd_get_info(-1, &info) < 0)" } },
    tests = { "host/zoo sigchld=ignored" },
  },
  {
    name = "no refusal of threads",
    edits = { { "src/engine/start.c",
      "    if (n != 1 && engine->opts.on_threads == FM_THREADS_REFUSE)\n"
      .. "        return FM_ETHREADS; /* also when it is not known */\n", "" } },
    tests = { "test_engine a_host_with_threads_is_warned_once_or_refused_or_left_alone" },
  },
  {
    name = "no bound of nested children",
    edits = { { "src/engine/start.c", "if (fm__child_depth() >= engine->opts.max_depth)",
      "if (fm__child_depth() > 50)" } },
    tests = { "test_engine children_nest_no_deeper_than_max_depth" },
  },
  {
    name = "no bound of the result in the parent",
    edits = { { "src/wire/inbox.c", "    if (inbox->limit != 0 && (uint64_t)want > inbox->limit) {",
      "    if (false) {" } },
    tests = { "test_inbox data_over_the_limit_ends_the_conversation" },
  },
  {
    name = "no budget of memory",
    edits = { { "src/lua/values_read.c",
      "int fmL_read_charge(struct fmL_reader *r, size_t bytes)\n{",
      "int fmL_read_charge(struct fmL_reader *r, size_t bytes)\n{\n    bytes = 0;" } },
    tests = { "codec_hostile_spec.lua more memory than the budget",
      "limits_spec.lua of the result too, when its values need too much memory" },
  },
  {
    name = "no clock for colliding keys",
    edits = { { "src/lua/values_read.c", "    if (now - r->clock_start > allowed)\n",
      "    if (now - r->clock_start > allowed && now < 0)\n" } },
    tests = { "codec_hostile_spec.lua keys that all collide" },
  },
  {
    name = "no bound of depth in JSON",
    edits = { { "src/wire/json_read.c",
      "    if (r->depth == r->bounds.depth)\n"
      .. "        return fail(r, p, FM_ELIMIT, \"nested too deep\");\n",
      "    if (r->depth == FM__DEPTH_MAX)\n        r->depth--;\n" } },
    tests = { "test_json_read nesting_is_bounded" },
  },
  {
    name = "no bound of depth in the binary codec",
    edits = { { "src/wire/binary.c",
      "    if (reader->depth >= reader->bounds.depth)\n"
      .. "        return exceeded(reader, \"nested too deep\");\n    rc = read_count",
      "    if (reader->depth >= FM__DEPTH_MAX)\n        reader->depth--;\n    rc = read_count" } },
    tests = { "test_binary binary_bounds_depth_and_values" },
  },
  {
    name = "a signal does not end a wait",
    edits = { { "src/os/poller_epoll.c", "    if (got < 0)\n        return -errno;\n    for",
      "    if (got < 0)\n        return errno == EINTR ? 0 : -errno;\n    for" } },
    tests = { "test_engine a_signal_ends_a_wait_early" },
  },
  {
    name = "core files",
    edits = { { "src/process/limits.c", "    int rc = forbid_core();",
      "    int rc = limits ? 0 : forbid_core();" } },
    tests = { "test_child a_child_writes_no_core_file" },
  },
  {
    name = "the kernel takes the host first",
    edits = { { "src/process/child.c",
      "        if (child->ticks++ == 0)\n            raise_oom_score();\n",
      "        child->ticks++;\n" } },
    tests = { "test_child the_kernel_takes_a_busy_child_before_the_host" },
  },
  {
    name = "a job on the caller's thread",
    edits = { { "src/lua/call.c", "    call->thread = lua_newthread(L);\n",
      "    call->thread = L;\n    (void)lua_newthread(L);\n" } },
    tests = { "call_spec.lua works inside a coroutine" },
  },
  {
    name = "os.exit is the host's",
    edits = {
      { "src/lua/leave.c",
        "    fmL_replace(L, FML_KEPT_OS, FML_KEPT_NAME_EXIT, FML_KEPT_EXIT);\n", "" },
      { "src/lua/leave.c",
        "    if (closing == main_thread || !lua_checkstack(main_thread, LUA_MINSTACK))\n",
        "    if (closing || !closing)\n" },
      { "src/lua/future.c", "        fmL_leave_closing(L);\n", "        (void)0;\n" },
    },
    tests = { "call_spec.lua sees no __close of the host's variables run in the child",
      "call_spec.lua sees no __gc of the host's objects run when the child ends" },
  },
  {
    name = "signals while a lock of forks is held",
    edits = { { "src/os/signals.c", "    if (fm__signals_block(ret_old) < 0)\n", "" } },
    tests = { "test_handlers a_handler_that_forks_at_any_moment_gets_nothing_of_the_engine" },
  },
  {
    name = "no refusal of who interrupts the engine",
    edits = { { "src/engine/entry.c",
      "    if (engine->is_at_work)\n        return false;\n", "" } },
    tests = { "test_handlers an_engine_that_a_handler_has_interrupted_refuses_its_calls" },
  },
  {
    name = "listening to a child that is withheld",
    edits = { { "src/engine/engine.c",
      "    fm__poller_remove(&future->engine->poller, fm__pid_fd(&future->pid));\n", "" } },
    tests = { "test_traced a_child_that_is_traced_after_its_end_does_not_keep_the_engine_busy" },
  },
  {
    name = "orphans of a group left to the host",
    edits = { { "src/os/orphans.c", "if (!are_ours && !come_here())",
      "if (!are_ours && (come_here() || true))" } },
    tests = { "test_hosts a_host_that_orphans_come_to_gets_only_those_that_left_their_group" },
  },
  {
    name = "items that were cut are not marked",
    edits = { { "src/wire/tray.c", "int rc = tray->is_cut ? put_drop(tray) : 1;",
      "int rc = 1;" } },
    tests = { "test_tray an_item_that_was_cut_comes_whole_the_next_time" },
  },
  {
    name = "no doubt about what was read of a tray",
    edits = { { "src/wire/tray.c",
      "    if (ring->at - ring->far > ring->size)\n        return FM_EPROTOCOL;\n", "" } },
    tests = { "test_tray a_reader_that_lies_about_what_it_read_is_found_out" },
  },
  {
    name = "nobody told of the room in a tray",
    edits = { { "src/process/fetch.c",
      "        if (fm__bell_ring(&worker->outbox->bell) < 0)\n            return FM_ECLOSED;",
      "        if (!worker->outbox)\n            return FM_ECLOSED;" } },
    tests = { "test_map_source a_host_that_sleeps_is_told_of_the_room_in_a_tray" },
  },
  {
    name = "items of a source kept for good",
    edits = { { "src/engine/map.h", "        fm__source_drop(map, index);\n",
      "        (void)index;\n" } },
    tests = { "test_map_source every_item_that_is_fed_reaches_a_worker_whole",
      "test_map_source a_long_source_runs_in_constant_memory" },
  },
  {
    name = "items of a source let go when they are poured",
    edits = { { "src/engine/source.c", "    pour->next++;\n",
      "    fm__source_drop(member->map, pour->next++);\n" } },
    tests = { "test_source_ends with_retries_the_same_item_is_given_again",
      "test_source_ends a_worker_that_dies_costs_the_item_that_it_was_in" },
  },
  {
    name = "no bound on what is fed",
    edits = { { "src/engine/source.c", "        return -EAGAIN;\n", "        return 0;\n" } },
    tests = { "test_map_source no_more_is_taken_than_may_be_active" },
  },
  {
    name = "claims of what was not offered",
    edits = { { "src/engine/ledger.c",
      "    if (map->opts.is_source && !is_offered(member, first, n))\n",
      "    if (map == NULL)\n" } },
    tests = { "test_source_ends a_worker_that_takes_what_was_not_offered_is_ended" },
  },
  {
    name = "iterators read ahead of the consumer",
    edits = { { "lua/fork_map/source.lua", "  return self.n - consumed < self.active\n",
      "  return self.n - consumed < self.active + 1\n" } },
    tests = { "source_spec.lua are read no further ahead of the consumer" },
  },
  {
    name = "one call more than the window of a dispatch",
    edits = { { "lua/fork_map/dispatch.lua", "self.n_open < self.window and",
      "self.n_open <= self.window and" } },
    tests = { "executor_kinds_spec.lua gets two calls for each worker" },
  },
  {
    name = "a dispatch does not wait for what it cancels",
    edits = { { "lua/fork_map/dispatch.lua",
      "  while self.n_open > 0 and not self.loop.is_closed do\n",
      "  while self.n_open > 0 and self.loop.is_closed do\n" } },
    tests = { "executor_kinds_spec.lua has nothing left of a map that is left by an error" },
  },
  {
    name = "cancelled items among the failures",
    edits = { { "lua/fork_map/dispatch.lua", "  if self.is_closed then\n    return\n  elseif cell",
      "  if cell" } },
    tests = { "executor_kinds_spec.lua raises what failed, and not what was cancelled for it" },
  },
  {
    name = "answers of calls are believed",
    edits = { { "lua/fork_map/fold.lua", "  return failure.index >= task.first and",
      "  return failure.index > 0 or" } },
    tests = { "executor_kinds_spec.lua cannot pass an answer off as something else" },
  },
  {
    name = "any _ENV travels",
    edits = { { "lua/fork_map/travel.lua", "  if rawequal(value, globals) and (",
      "  if globals ~= nil and (" } },
    tests = { "travel_spec.lua refuses an _ENV that is another table" },
  },
}

for _, more in ipairs { of_maps, of_channels } do
  table.move(more, 1, #more, #mutants + 1, mutants)
end

return mutants
