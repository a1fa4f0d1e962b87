#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Do the tests notice when a remedy is missing?  Takes each one out of a copy of
# the project (spec/support/mutants.lua lists them), builds it, and runs the
# tests that should fail:
#
#   sh spec/mutants.sh [NAME...]      all of them by default
#
# The last line is "N mutants, N unnoticed"; the status is 0 when none is.

set -eu
cd "$(dirname "$0")/.."
. .ci/lib.sh

need gcc libc6-dev cmake ninja-build lua5.4 liblua5.4-dev lua-busted lua-cjson \
  pkgconf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/tree"
tar -cf - --exclude=./build --exclude=./.git . | tar -xf - -C "$dir/tree"
gcc -O1 -D_GNU_SOURCE spec/support/reaper.c -o "$dir/reaper"
(
  cd "$dir/tree"
  # What is taken out leaves unused names behind.
  build dev -DFM_WERROR=OFF
) >"$dir/log" 2>&1 || {
  cat "$dir/log" >&2
  exit 1
}
lua5.4 spec/mutants.lua "$dir" "$@"
