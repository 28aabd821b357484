#!/usr/bin/env bash
# The simulator's share of continuous integration (.ci/run calls it): at most four minutes on two cores, from nothing.
# Prints the seconds of each part and stops at the first one that is not as it should be.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0

# Seeds that every push runs, besides the one of its commit.
SEEDS=1..2000
# Planted bugs that every push must find: easy and hard ones, from each part of the core and from the world's driver.
BUGS=(B01 B04 B05 B08 B10 B14 B18 B25 H12 X11 X15 X30 X44 X46 X52 X61)
BUG_SEEDS=2000

part() { # what, command...
  local what=$1 begin=$SECONDS
  shift
  if ! "$@"; then
    printf '    FAILED: %s\n' "$what"
    return 1
  fi
  printf '%5d s  %s\n' $((SECONDS - begin)) "$what"
}

exits_with() { # code, command...
  local wanted=$1 code=0
  shift
  "$@" >target/sim-part.txt || code=$?
  if [ "$code" != "$wanted" ]; then
    tail -n 100 target/sim-part.txt
    echo "exit code $code, not $wanted: $*"
    return 1
  fi
}

# What goes well is told in its last line; what does not, in full.
quietly() {
  exits_with 0 "$@" || return 1
  tail -n 1 target/sim-part.txt
}

agree() {
  local of=(trail --seeds 1..200)
  "$sim" "${of[@]}" >target/trail-dev.txt
  target/sim-release/release/tidegate-sim "${of[@]}" >target/trail-release.txt
  cmp target/trail-dev.txt target/trail-release.txt || return 1
  echo "200 seeds are the same in the dev and in the release build, at every 1024 events and at the end"
}

bugs() {
  local of=()
  for bug in "${BUGS[@]}"; do of+=(--bug "$bug"); done
  exits_with 0 target/bugs/debug/tidegate-sim bank --runs 1 --seeds "$BUG_SEEDS" "${of[@]}" || return 1
  cat target/sim-part.txt
}

sim=target/debug/tidegate-sim
part "build" cargo build -q -p tidegate-sim
part "equal runs in two processes" quietly "$sim" meta --seeds 20
part "named scenarios" quietly "$sim" replay sim/scenarios
part "corpus" quietly "$sim" replay sim/corpus
if commit=$(git rev-parse --verify -q HEAD 2>/dev/null); then
  echo "    the commit's own seed: $commit"
else
  commit=7fffffffffff0000000000000000000000000000
  echo "    NO COMMIT HERE (no git): the seed of the commit is a fixed one, $commit"
fi
part "the commit's seed" quietly "$sim" run --commit "$commit"
part "seeds $SEEDS" quietly "$sim" run --seeds "$SEEDS" --junit target/sim.xml
part "the canary dies" exits_with 10 "$sim" run --canary
part "build with planted bugs" env TIDEGATE_BUGS=1 cargo build -q --target-dir target/bugs -p tidegate-sim
part "sixteen planted bugs" bugs
# Without link-time optimisation: what is compared is code without assertions and overflow checks, soon enough.
part "release build" env CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
  cargo build -q --release --target-dir target/sim-release -p tidegate-sim
part "dev and release agree" agree
