#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Install what is missing, build, and analyse the C headers of this machine in
# parallel, among them one that crashes its process; see headers.lua.
#
#   sh examples/headers.sh [HOW_MANY]

set -u
cd "$(dirname "$0")/.." || exit 1
. .ci/lib.sh

need gcc libc6-dev cmake ninja-build lua5.4 liblua5.4-dev || exit 1
build release || exit 1
exec lua5.4 -e 'package.path = "./lua/?.lua;./lua/?/init.lua;" .. package.path
  package.cpath = "./build/release/lua/?.so;" .. package.cpath' \
  examples/headers.lua "$@"
