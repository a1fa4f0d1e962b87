#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The soak test (spec/soak.lua) on its own:
#
#   sh spec/soak.sh [JOBS [SECONDS [SEED]]]     200,000 calls by default
#
# FORK_MAP_BUILD names a build with tests, build/dev by default.

set -eu
cd "$(dirname "$0")/.."
. .ci/lib.sh

dir=${FORK_MAP_BUILD:-}
if [ -z "$dir" ]; then
  need gcc libc6-dev cmake ninja-build lua5.4 liblua5.4-dev lua-busted pkgconf
  build dev
  dir=$PWD/build/dev
fi
export LUA_PATH="$PWD/lua/?.lua;$PWD/spec/?.lua;;"
export LUA_CPATH="$dir/lua/?.so;;"
# What malloc keeps for itself in each thread counts as in use: it keeps none.
export GLIBC_TUNABLES=glibc.malloc.tcache_count=0
[ $# -gt 0 ] || set -- 200000
exec lua5.4 spec/soak.lua "$@"
