#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Which branches do the tests take?  Runs all of them with the presets dev and
# portable, instrumented, and reports what they reach in the parts that start
# and reap children and that read what children say:
#
#   sh spec/coverage.sh
#
# The table is printed; build/coverage/index.html shows each line.  Tests that
# fail are told and change nothing else: a few look at descriptors, sizes of
# files or memory, which the instruments use too.

set -u
cd "$(dirname "$0")/.." || exit 1
. .ci/lib.sh

need gcc libc6-dev cmake ninja-build lua5.4 liblua5.4-dev lua-busted lua-cjson \
  pkgconf locales gcovr || exit 1
out=$PWD/build/coverage
rm -rf "$out"
mkdir -p "$out/tree"
tar -cf - --exclude=./build --exclude=./.git . | tar -xf - -C "$out/tree"
export LOCPATH="$PWD/build/locale"
cd "$out/tree" || exit 1
gcc -O1 -c spec/support/coverage.c -o "$out/coverage.o" || exit 1
# A child writes down what it went through after it has said all, which takes
# longer than any other may stay then.
sed -i 's/^#define LEAVE_NS .*/#define LEAVE_NS (3 * FM__NS_PER_S)/' \
  src/engine/attempt.c

# cover PRESET: build it with instruments and run its tests.
cover()
{
  dir=$out/$1
  cmake --preset "$1" -B "$dir" -G Ninja -DFM_WERROR=OFF \
    -DCMAKE_C_FLAGS="--coverage -fprofile-abs-path" -DCMAKE_C_FLAGS_DEBUG="-g -O0" \
    -DCMAKE_EXE_LINKER_FLAGS="-Wl,--wrap=_exit" \
    -DCMAKE_SHARED_LINKER_FLAGS="-Wl,--wrap=_exit" \
    -DCMAKE_MODULE_LINKER_FLAGS="-Wl,--wrap=_exit" \
    -DCMAKE_C_STANDARD_LIBRARIES="$out/coverage.o" >"$out/$1.log" 2>&1 &&
    cmake --build "$dir" >>"$out/$1.log" 2>&1 || {
      tail -n 30 "$out/$1.log"
      exit 1
    }
  ctest --test-dir "$dir" --parallel "$(jobs_at_once)" --timeout 300 </dev/null \
    >"$out/$1-ctest.log" 2>&1
  sed -n '/tests passed/,$p' "$out/$1-ctest.log"
  FORK_MAP_BUILD=$dir FORK_MAP_PRELOAD= lua5.4 spec/support/busted.lua \
    -o plainTerminal --exclude-tags="package,slow,not_$1" spec \
    --lpath="./lua/?.lua;./lua/?/init.lua;./spec/?.lua" \
    --cpath="$dir/lua/?.so" </dev/null >"$out/$1-busted.log" 2>&1
  grep ' successes / ' "$out/$1-busted.log"
}

cover dev
cover portable
gcovr --root . --exclude-unreachable-branches --gcov-ignore-parse-errors \
  --html-details "$out/index.html" --filter src/process/ --filter src/wire/ \
  --filter src/os/ --filter src/engine/ --filter 'src/lua/values' --branches \
  --txt - "$out"
