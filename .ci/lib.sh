# SPDX-License-Identifier: MIT
#
# What the scripts share; sourced with the project's root as directory.

# need PACKAGE...: install the Debian packages that are missing.  Where there
# is no dpkg the tools are taken as they are; one that is absent says so when
# it is called.
need()
{
  command -v dpkg-query >/dev/null || return 0
  missing=
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null |
      grep -q 'ok installed' || missing="$missing $package"
  done
  [ -n "$missing" ] || return 0

  as_root=
  if [ "$(id -u)" -ne 0 ]; then
    as_root="sudo"
    command -v sudo >/dev/null || as_root=
  fi
  echo "Installing:$missing"
  # The lists are brought up to date only when they do not know a package.
  apt_install $missing || {
    $as_root apt-get update </dev/null && apt_install $missing
  } || {
    echo "Cannot install:$missing" >&2
    return 1
  }
}

apt_install()
{
  $as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends "$@" </dev/null
}

# build PRESET [CMAKE OPTION...]: configure and build below build/PRESET.
build()
{
  preset=$1
  shift
  if [ -z "${CMAKE_GENERATOR:-}" ] && command -v ninja >/dev/null; then
    export CMAKE_GENERATOR=Ninja
  fi
  mkdir -p build
  cmake --preset "$preset" "$@" >"build/$preset.log" 2>&1 || {
    cat "build/$preset.log" >&2
    return 1
  }
  cmake --build --preset "$preset" --parallel "$(jobs_at_once)"
}

# A locale with a decimal comma, wherever the system has none.
make_locale()
{
  dir=$PWD/build/locale
  if [ ! -d "$dir/de_DE.UTF-8" ]; then
    mkdir -p "$dir"
    localedef -i de_DE -f UTF-8 "$dir/de_DE.UTF-8" >/dev/null 2>&1 || return 0
  fi
  export LOCPATH="$dir"
}

jobs_at_once()
{
  nproc 2>/dev/null || echo 2
}

# tally_begin FILE: count in it from now on.
tally_begin()
{
  export FORK_MAP_TALLY="$1"
  rm -f "$FORK_MAP_TALLY.failures"
  : >"$FORK_MAP_TALLY"
}

# tally NAME PASSED FAILED: one line of the sum that spec/run and .ci/run end
# with.
tally()
{
  echo "$2 $3 $1" >>"$FORK_MAP_TALLY"
  echo "== $1: $2 passed, $3 failed"
}

# keep_failure NAME: what standard input says of a failure is told once more
# before the sum; of a long log often only the end is kept.
keep_failure()
{
  {
    echo "--- $1"
    tail -n 80
  } >>"$FORK_MAP_TALLY.failures"
}

# tally_check NAME COMMAND...: one check, passed when the command succeeds.
tally_check()
{
  name=$1
  shift
  echo "== $name"
  "$@" >"$FORK_MAP_TALLY.check" 2>&1
  status=$?
  cat "$FORK_MAP_TALLY.check"
  if [ "$status" -eq 0 ]; then
    tally "$name" 1 0
  else
    tally "$name" 0 1
    keep_failure "$name" <"$FORK_MAP_TALLY.check"
  fi
}

# tally_end: print the sum as the last line; false if anything failed or if
# nothing passed.
tally_end()
{
  [ ! -f "$FORK_MAP_TALLY.failures" ] || cat "$FORK_MAP_TALLY.failures"
  [ ! -s "$FORK_MAP_TALLY" ] || sort -k 3 "$FORK_MAP_TALLY" |
    awk '{ n = $1; m = $2; $1 = $2 = ""; printf "%6d passed %4d failed %s\n",
           n, m, $0 }'
  awk '{ passed += $1; failed += $2 }
       END { printf "%d passed, %d failed\n", passed, failed
             exit !(passed > 0 && failed == 0) }' "$FORK_MAP_TALLY"
}
