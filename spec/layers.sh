#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Calls point down only: no header of an upper layer, and none of Lua, can be
# found with the include path of a lower one, and no source climbs out of its
# directory to get at it.
#
#   layers.sh CC SRC os=DIRS wire=DIRS process=DIRS engine=DIRS
#
# DIRS are the layer's include directories, separated by colons.

set -u

cc=$1
src=$2
shift 2
failed=0

complain()
{
  echo "layers: $*" >&2
  failed=1
}

# compiles DIRS HEADER: is the header there for code with this include path?
compiles()
{
  flags=-I$(echo "$1" | sed 's/:/ -I/g')
  # shellcheck disable=SC2086 # one word per directory
  echo "#include \"$2\"" |
    "$cc" -std=c11 -D_GNU_SOURCE -fsyntax-only $flags -x c - 2>/dev/null
}

# may_see LAYER HEADER: the rule itself.
may_see()
{
  case $1:$2 in
    *:fork_map.h | os:os/*) true ;;
    wire:os/sys.h | wire:os/memory.h | wire:wire/*) true ;;
    process:os/* | process:wire/* | process:process/*) true ;;
    engine:os/* | engine:wire/* | engine:process/* | engine:engine/*) true ;;
    *) false ;;
  esac
}

for pair in "$@"; do
  layer=${pair%%=*}
  dirs=${pair#*=}
  headers=$(cd "$src" && echo fork_map.h */*.h)
  for header in $headers; do
    if may_see "$layer" "$header"; then
      compiles "$dirs" "$header" || complain "$layer cannot include $header"
    elif compiles "$dirs" "$header"; then
      complain "$layer can include $header"
    fi
  done
  # Lua may lie on the compiler's own path; then only the names can be checked.
  if ! compiles "$src/none" lua.h && compiles "$dirs" lua.h; then
    complain "$layer can include lua.h"
  fi
  if grep -n '#include *[<"]\(\.\./\|lua\.h\|lauxlib\.h\|/\)' \
      "$src/$layer"/*.[ch]; then
    complain "$layer includes what it should not"
  fi
done

exit $failed
