#!/bin/sh
# SPDX-License-Identifier: MIT
#
# How long faults take to be noticed (bench/reliability.lua):
#
#   sh bench/reliability.sh [ROUNDS]
#
# FORK_MAP_BUILD names a build with tests, build/dev by default.

set -eu
cd "$(dirname "$0")/.."
. .ci/lib.sh

dir=${FORK_MAP_BUILD:-}
if [ -z "$dir" ]; then
  need gcc libc6-dev cmake ninja-build lua5.4 liblua5.4-dev pkgconf
  build dev
  dir=$PWD/build/dev
fi
export LUA_PATH="$PWD/lua/?.lua;;" LUA_CPATH="$dir/lua/?.so;;"
exec lua5.4 bench/reliability.lua "$@"
