-- SPDX-License-Identifier: MIT
-- Of the remedies that spec/mutants.sh takes out, those of maps: see mutants.lua.

return {
  {
    name = "claims of what others have count",
    edits = { { "src/engine/ledger.c", "    member->is_void = rc == 0;\n",
      "    member->is_void = false;\n" } },
    tests = { "test_map_hostile what_others_have_is_theirs" },
  },
  {
    name = "claims beyond the items",
    edits = { { "src/engine/ledger.c",
      "    if (n == 0 || n > FM__CLAIM_MAX || first >= map->n_items ||\n"
      .. "        n > map->n_items - first)\n",
      "    if (n == 0)\n" } },
    tests = { "test_map_forged a_claim_of_what_is_not_there_has_no_outcomes" },
  },
  {
    name = "a claim over a claim",
    edits = { { "src/engine/ledger.c",
      "    if (fm__member_has_claim(member) && !member->is_void)\n"
      .. "        return FM_EPROTOCOL;",
      "    if (map == NULL)\n"
      .. "        return FM_EPROTOCOL;" } },
    tests = { "test_map_forged a_claim_over_a_claim_loses_none_of_its_items" },
  },
  {
    name = "results without a claim",
    edits = {
      { "src/engine/member.c",
        "    if (!fm__member_has_claim(member) || member->pieces.len > 0 ||\n",
        "    if (member->pieces.len > 0 ||\n" },
      { "src/engine/member.c",
        "    if (!fm__member_has_claim(member))\n"
        .. "        return FM_EPROTOCOL;\n",
        "" },
    },
    tests = { "test_map_hostile what_others_have_is_theirs" },
  },
  {
    name = "no end for who claims without end",
    edits = { { "src/engine/ledger.c",
      "    return member->is_void && ++member->n_void > VOID_MAX ? FM_EPROTOCOL : 0;\n",
      "    return 0;\n" } },
    tests = { "test_map_forged a_worker_that_claims_without_end_is_ended" },
  },
  {
    name = "items that were passed over are lost",
    edits = { { "src/engine/ledger.c",
      "    if (!fm__spans_first(&map->spare, ret) || ret->first >= end)\n",
      "    if (!fm__spans_first(&map->spare, ret) || ret->first <= end)\n" } },
    tests = { "test_map_hostile a_cursor_may_say_what_it_likes" },
  },
  {
    name = "items between cursor and claim are given to others",
    edits = { { "src/engine/ledger.c",
      "            atomic_load(&fm__member_post(member)->claiming) != 0)\n",
      "            map->engine == NULL)\n" } },
    tests = { "test_map_ledger items_between_the_cursor_and_their_claim_are_given_to_nobody" },
  },
  {
    name = "no item is charged for a death",
    edits = { { "src/engine/member_end.c",
      "    return fm__span_low(member->last_word) != FM__WORD_IDLE &&\n",
      "    return member->map == NULL &&\n" } },
    tests = { "test_map a_worker_that_dies_costs_the_item_it_was_in" },
  },
  {
    name = "the next item is charged for a death between items",
    edits = { { "src/engine/member_end.c",
      "           member->last_at == member->first + member->done;\n",
      "           true;\n" } },
    tests = { "test_map_ledger a_worker_that_dies_between_two_items_costs_none" },
  },
  {
    name = "what a dead worker had is lost",
    edits = { { "src/engine/member_end.c", "    fm__ledger_release(member);\n",
      "" } },
    tests = { "test_map a_worker_that_dies_costs_the_item_it_was_in" },
  },
  {
    name = "what a dead worker has finished is given to others",
    edits = { { "src/engine/ledger.c",
      "        give_back(member->map, member->first + member->done,\n",
      "        give_back(member->map, member->first,\n" } },
    tests = { "test_map a_worker_that_dies_costs_the_item_it_was_in" },
  },
  {
    name = "attempts of what comes back are forgotten",
    edits = { { "src/engine/ledger.c", "    if (attempt > 1) {\n",
      "    if (map == NULL) {\n" } },
    tests = { "test_map_ledger an_item_that_comes_back_before_its_attempt_has_no_more_of_them" },
  },
  {
    name = "retries of any kind",
    edits = { { "src/engine/ledger.c", "!(opts->retry_on & FM_KIND_BIT(kind)) ||\n",
      "\n" } },
    tests = { "test_map_ledger what_fails_in_a_way_that_is_not_listed_is_not_tried_again" },
  },
  {
    name = "the time of an item is that of its claim",
    edits = { { "src/engine/watch.c", "    if (item != member->seen_item) {\n",
      "    if (member->seen_item == UINT64_MAX) {\n" } },
    tests = { "test_map_ledger the_time_of_an_item_is_not_that_of_those_before_it" },
  },
  {
    name = "a worker is believed when its item began",
    edits = { { "src/engine/watch.c",
      "    return said < member->seen_item_since && said > 0 ? said\n",
      "    return said > 0 ? said\n" } },
    tests = { "test_map_hostile a_post_may_say_what_it_likes" },
  },
  {
    name = "who was given up goes on",
    edits = { { "src/process/worker.c",
      "        if (fm__span_low(word) == FM__WORD_CONDEMNED)\n"
      .. "            give_up();\n"
      .. "        last =",
      "        last =" } },
    tests = { "test_map_ledger an_item_that_ends_after_its_time_is_the_last_of_its_worker" },
  },
  {
    name = "who is given up keeps the rest of its claim",
    edits = { { "src/engine/ledger.c",
      "    if (count == 0 || member->is_void || !fm__member_has_claim(member) ||\n"
      .. "        next <",
      "    if (member->map ||\n"
      .. "        next <" } },
    tests = { "test_map_ledger an_item_that_ends_after_its_time_is_the_last_of_its_worker" },
  },
  {
    name = "who stands still keeps the rest of its claim",
    edits = { { "src/engine/ledger.c", "        if (take_back_rest(member, now))\n",
      "        if (map == NULL && take_back_rest(member, now))\n" } },
    tests = { "test_map a_slow_item_holds_up_no_other" },
  },
  {
    name = "who stands still keeps what it was given",
    edits = { { "src/engine/ledger.c", "    if (take_back_gifts(map, now))\n",
      "    if (map == NULL && take_back_gifts(map, now))\n" } },
    tests = { "test_map_bounds an_item_that_is_tried_again_does_not_wait_for_a_slow_one" },
  },
  {
    name = "no recall of who stands still",
    edits = { { "src/engine/ledger.c", "    atomic_store(&fm__member_post(member)->recall, 1);\n",
      "" } },
    tests = { "test_map a_slow_item_holds_up_no_other" },
  },
  {
    name = "no barrier before items are taken back",
    edits = { { "src/engine/ledger.c", "    return !member->map->has_fence || fm__fence_all();\n",
      "    return true;\n" } },
    tests = { "test_map_ledger an_item_that_was_entered_before_the_barrier_is_not_taken_back" },
  },
  {
    name = "no second look before items are taken back",
    edits = { { "src/engine/ledger.c",
      "    if (!recall(member) || item_of(member, word) != at ||\n",
      "    if (!recall(member) ||\n" } },
    tests = { "test_map_ledger an_item_that_was_entered_before_the_barrier_is_not_taken_back" },
  },
  {
    name = "no end of a crash loop",
    edits = { { "src/engine/member_end.c", "    if (++map->n_fruitless <= map->n_members + 3)\n",
      "    if (++map->n_fruitless > 0)\n" } },
    tests = { "test_map_bounds workers_that_never_work_end_the_map" },
  },
  {
    name = "workers that die at their start end a map that gets on",
    edits = { { "src/engine/member_end.c",
      "    if (others_work(map, member))\n"
      .. "        return;\n",
      "" } },
    tests = { "test_map_bounds workers_that_die_at_their_start_do_not_end_a_map_that_gets_on" },
  },
  {
    name = "no pause between workers that die",
    edits = { { "src/engine/hire.c", "    if (work > 0 && now < map->hire_at) {\n",
      "    if (work > 0 && now < 0) {\n" } },
    tests = { "test_map_bounds workers_that_die_at_their_start_do_not_end_a_map_that_gets_on" },
  },
  {
    name = "no bound of a worker's items",
    edits = { { "src/process/worker.c", "    if (crew->max_tasks > 0 && n >= crew->max_tasks)\n",
      "    if (crew->max_tasks > n && n >= crew->max_tasks)\n" } },
    tests = { "test_map workers_are_replaced_after_so_many_items" },
  },
  {
    name = "no bound of a worker's memory",
    edits = { { "src/process/worker.c", "n > 0 && fm__proc_rss() > crew->max_rss)",
      "n == 0 && fm__proc_rss() > crew->max_rss)" } },
    tests = { "map_workers_spec.lua replaces a worker after max_tasks items and above max_rss" },
  },
  {
    name = "no bound on what may be active",
    edits = { { "src/engine/map.c",
      "    if (map->opts.max_active > 0 &&\n"
      .. "        map->opts.max_active < end",
      "    if (map->opts.max_active > 0 &&\n"
      .. "        end < end" } },
    tests = { "test_map no_more_items_begin_than_may_be_active" },
  },
  {
    name = "the parent is not told that a worker is idle",
    edits = { { "src/process/worker.c",
      "    if (rc == 0)\n"
      .. "        fm__worker_wake_parent(worker);\n"
      .. "    return rc;\n",
      "    return rc;\n" } },
    tests = { "test_map_wakes a_map_that_ends_is_heard" },
  },
  {
    name = "the parent goes to sleep without a last look",
    edits = { { "src/wire/ring.c", "    return atomic_load(&ring->shared->tail) != ring->at;\n",
      "    return false;\n" } },
    tests = { "test_map_wakes a_map_that_ends_is_heard" },
  },
  {
    name = "workers that sleep are not woken",
    edits = { { "src/engine/map.c",
      "    if (atomic_load(&channel->post->asleep) != 0)\n"
      .. "        fm__word_wake",
      "    if (atomic_load(&channel->post->asleep) > 1)\n"
      .. "        fm__word_wake" } },
    tests = { "test_map_wakes workers_that_are_given_items_are_woken" },
  },
  {
    name = "workers that wait for room are not woken",
    edits = { { "src/engine/member.c", "            fm__word_wake(&ring->shared->room);\n",
      "            (void)0;\n" } },
    tests = { "test_map_wakes workers_that_wait_for_room_are_woken" },
  },
  {
    name = "stop() ends nothing",
    edits = { { "src/engine/map.c",
      "    if (item->type == FM_ITEM_STOP)\n"
      .. "        stop_soon(map, -1);\n",
      "" } },
    tests = { "map_spec.lua ends when an item says so, with what there is" },
  },
  {
    name = "outcomes after the end of their map",
    edits = { { "src/engine/map.c",
      "        return;\n"
      .. "    fm__map_count(map, item->index);\n",
      "        (void)0;\n"
      .. "    fm__map_count(map, item->index);\n" } },
    tests = { "test_map_bounds a_callback_may_stop_its_map" },
  },
  {
    name = "no deadline of the whole",
    edits = { { "src/engine/map.c", "    if (now >= map->deadline_at) {\n",
      "    if (now < 0) {\n" } },
    tests = { "test_map a_deadline_ends_the_whole_map" },
  },
  {
    name = "no end for who does not leave",
    edits = { { "src/engine/map.c", "    fm__watch_leavers(map, now);\n",
      "" } },
    tests = { "test_map_ledger a_worker_that_does_not_leave_when_all_is_done_is_ended" },
  },
  {
    name = "no watch over liars",
    edits = { { "src/engine/map.c", "    fm__watch_suspects(map, now);\n",
      "" } },
    tests = { "test_map_hostile a_post_may_say_what_it_likes" },
  },
  {
    name = "no check of how many bytes came",
    edits = { { "src/engine/member.c",
      "    if (r->u != member->pieces.len)\n"
      .. "        return FM_EPROTOCOL;\n",
      "" } },
    tests = { "test_map_forged a_value_whose_end_counts_other_bytes_than_came_is_none" },
  },
  {
    name = "no check that a record is whole",
    edits = { { "src/engine/member.c",
      "    if (size > len)\n"
      .. "        return FM_EPROTOCOL;\n",
      "" } },
    tests = { "test_map_forged a_record_that_is_longer_than_what_was_written_is_none" },
  },
  {
    name = "no check of the texts of a failure",
    edits = { { "src/engine/member.c",
      "    if (len > texts->len - sizeof len || len > FM__FRAME_TEXT_MAX)\n"
      .. "        return false;\n",
      "" } },
    tests = { "test_map_forged texts_of_a_failure_that_are_longer_than_it_are_none" },
  },
  {
    name = "no check of a kind that a worker tells",
    edits = { { "src/engine/member.c",
      "    if (end.kind <= FM_VALUE || end.kind >= FM_KIND_COUNT)\n"
      .. "        return false;\n",
      "" } },
    tests = { "test_map_forged an_end_of_an_items_process_of_no_kind_is_none" },
  },
  {
    name = "one seed for all items of a worker",
    edits = { { "src/engine/map_child.c",
      "fm__seed_words(opts->seed, fm__worker_index(worker), ret_seed);",
      "fm__seed_words(opts->seed, worker->crew->id, ret_seed);" } },
    tests = { "map_spec.lua gives an item the same random numbers with a seed" },
  },
  {
    name = "a map in a map forks",
    edits = { { "lua/fork_map/plan.lua", "  if core.is_below_map() and not",
      "  if core == nil and not" } },
    tests = { "map_workers_spec.lua runs in the worker's process" },
  },
  {
    name = "output is not waited for",
    edits = { { "src/process/worker.c",
      "    if (!worker->crew->is_heard)\n"
      .. "        return;\n",
      "    if (worker->crew)\n"
      .. "        return;\n" } },
    tests = {
      "map_output_spec.lua comes line by line with the number of its item",
      "map_output_spec.lua is kept on the error of its item",
    },
  },
  {
    name = "output of the item before",
    edits = { { "src/engine/member.c",
      "    if (!captures(member))\n"
      .. "        return;\n",
      "    if (captures(member))\n"
      .. "        return;\n" } },
    tests = { "map_output_spec.lua is kept on the error of its item" },
  },
  {
    name = "a journal by the place in the list",
    edits = { { "lua/fork_map/journal.lua",
      "  return table.concat(out)\n"
      .. "end\n"
      .. "\n"
      .. "-- ----",
      "  return index .. table.concat(out)\n"
      .. "end\n"
      .. "\n"
      .. "-- ----" } },
    tests = { "journal_spec.lua has finished items skipped, wherever they are in the list" },
  },
  {
    name = "a failure that ends no other item",
    edits = { { "src/lua/map_callbacks.c", "    if (map->stops_at_failure)\n",
      "    if (map->stops_at_failure && map->n_failed < 0)\n" } },
    tests = { "map_death_spec.lua ends a map that does not collect" },
  },
  {
    name = "items after an init that failed",
    edits = { { "src/lua/worker.c", "    if (call_hook(L, job, FML_WORK_INIT) == LUA_OK) {\n",
      "    if (call_hook(L, job, FML_WORK_INIT) >= LUA_OK) {\n" } },
    tests = { "map_spec.lua raises what init or exit raise" },
  },
  {
    name = "a body that fails fails no map",
    edits = { { "src/engine/member_end.c",
      "    return (outcome->kind == FM_ERROR || outcome->kind == FM_ENCODE) &&\n"
      .. "           !was_in_item(member);\n",
      "    return false;\n" } },
    tests = { "test_map_bounds a_body_that_fails_outside_of_items_fails_its_map" },
  },
  {
    name = "a worker sleeps without a last look for a gift",
    edits = { { "src/process/worker.c",
      "    has_gift = fm__span_low(atomic_load(&post->gift)) == FM__GIFT_OFFERED;\n",
      "    has_gift = false;\n" } },
    tests = { "test_map_wakes a_worker_that_is_given_an_item_before_it_sleeps_does_not_sleep" },
  },
  {
    name = "the item after one that is over is condemned",
    edits = { { "src/engine/watch.c",
      "    if (!atomic_compare_exchange_strong(at, &word, word | FM__WORD_CONDEMNED)) {\n",
      "    atomic_store(at, word | FM__WORD_CONDEMNED);\n"
      .. "    if (now < 0) {\n" } },
    tests = { "test_map_ledger an_item_that_ends_when_it_is_about_to_be_condemned_costs_none" },
  },
  {
    name = "the next item is timed by the one before it",
    edits = { { "src/engine/watch.c", "    if (has_moved_on(member, word)) {\n",
      "    if (has_moved_on(member, word) && now < 0) {\n" } },
    tests = { "test_map_late an_item_is_not_ended_for_the_time_of_the_one_before_it" },
  },
}
