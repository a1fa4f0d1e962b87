#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Which branches do the tests take?  Runs all of them with the presets dev and
# portable, instrumented, and reports what they reach in the parts that start
# and reap children and that read what children say:
#
#   sh spec/coverage.sh
#
# Two tables are printed, by file and by part; build/coverage/index.html shows
# each line.  The status is 0 when no test failed and each part is at least at
# its target.

set -u
cd "$(dirname "$0")/.." || exit 1
. .ci/lib.sh

TARGET=95

need gcc libc6-dev cmake ninja-build lua5.4 liblua5.4-dev lua-busted lua-cjson \
  pkgconf locales gcovr || exit 1
# Hosts that have become another user write down what they did too.
umask 0
out=$PWD/build/coverage
rm -rf "$out"
mkdir -p "$out/tree"
tar -cf - --exclude=./build --exclude=./.git . | tar -xf - -C "$out/tree"
make_locale
cd "$out/tree" || exit 1
gcc -O1 -D_GNU_SOURCE -c spec/support/coverage.c -o "$out/coverage.o" || exit 1
# A child writes down what it went through after it has said all, which takes
# longer than any other may stay then; but it is not to outlast the half second
# after which an engine closes without it.
sed -i 's/^#define LEAVE_NS .*/#define LEAVE_NS (400 * FM__NS_PER_MS)/' \
  src/engine/attempt.c
# What the instruments cannot do they do not complain of among the output of
# those whom they watch.
export GCOV_ERROR_FILE=/dev/null
failed=0

# cover PRESET: build it with instruments and run its tests.
cover()
{
  dir=$out/$1
  cmake --preset "$1" -B "$dir" -G Ninja -DFM_WERROR=OFF \
    -DCMAKE_C_FLAGS="--coverage -fprofile-abs-path -fprofile-update=atomic" \
    -DCMAKE_C_FLAGS_DEBUG="-g -O0" \
    -DCMAKE_EXE_LINKER_FLAGS="-Wl,--wrap=_exit" \
    -DCMAKE_SHARED_LINKER_FLAGS="-Wl,--wrap=_exit" \
    -DCMAKE_MODULE_LINKER_FLAGS="-Wl,--wrap=_exit" \
    -DCMAKE_C_STANDARD_LIBRARIES="$out/coverage.o" >"$out/$1.log" 2>&1 &&
    cmake --build "$dir" >>"$out/$1.log" 2>&1 || {
      tail -n 30 "$out/$1.log"
      exit 1
    }
  ctest --test-dir "$dir" --parallel "$(jobs_at_once)" --timeout 300 \
    --output-on-failure </dev/null >"$out/$1-ctest.log" 2>&1 || failed=1
  sed -n '/tests passed/,$p' "$out/$1-ctest.log"
  FORK_MAP_BUILD=$dir FORK_MAP_PRELOAD= lua5.4 spec/support/busted.lua \
    -o plainTerminal --exclude-tags="package,slow,not_$1" spec \
    --lpath="./lua/?.lua;./lua/?/init.lua;./spec/?.lua" \
    --cpath="$dir/lua/?.so" </dev/null >"$out/$1-busted.log" 2>&1 || failed=1
  grep ' successes / ' "$out/$1-busted.log"
}

# Lines of --csv: file, lines, taken, share, branches, taken, share, ...
by_part()
{
  awk -F , -v target="$TARGET" '
    BEGIN {
      part["codecs"] = "wire/(json.*|binary.*|number.*|buffer)[.]c$"
      part["ring, frames, inbox"] = "wire/(ring|frame|inbox)[.]c$"
      part["spawn"] = "(process/child|engine/start|engine/attempt|engine/job)[.]c$"
      part["reap"] = "(os/pid_.*|engine/outcome)[.]c$"
    }
    {
      for (name in part)
        if ($1 ~ part[name]) { all[name] += $5; taken[name] += $6 }
    }
    END {
      for (name in part) {
        share = all[name] ? 100 * taken[name] / all[name] : 0
        printf "%-20s %4d of %4d branches, %.1f %%\n", name, taken[name],
          all[name], share
        low += share < target
      }
      exit low > 0
    }' "$1"
}

cover dev
cover portable
gcovr --root . --exclude-unreachable-branches --gcov-ignore-parse-errors \
  --html-details "$out/index.html" --filter src/process/ --filter src/wire/ \
  --filter src/os/ --filter src/engine/ --filter 'src/lua/values' --branches \
  --csv "$out/table.csv" --txt - "$out"
by_part "$out/table.csv" || failed=1
exit "$failed"
