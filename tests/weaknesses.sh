#!/usr/bin/env bash
# Whether the tests of the worst weaknesses can fail (docs/protocol.md, "Weaknesses of the predecessor", rows of S1): each
# passes as it is, and fails when the bug of its row is planted in the site under test.
# Usage: tests/weaknesses.sh [target directory]
# Builds everything once more with TIDEGATE_BUGS=1. By itself in target/bugs, which disturbs no other build and builds what we
# depend on once more, too; continuous integration says `target`, where that is there.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:-target/bugs}
out=target/weaknesses
mkdir -p "$out"

rows=$(sed -n '/^## Weaknesses of the predecessor/,$p' docs/protocol.md |
  awk -F' *[|] *' '$5 == "S1" { test = $6; gsub(/`/, "", test); sub(/^it::/, "", test); print $2, test, $7 }')
count=$(grep -c . <<<"$rows")
if ((count < 9)); then
  echo "the table has $count rows of S1"
  exit 1
fi

begin=$SECONDS
TIDEGATE_BUGS=1 cargo test --target-dir "$target" --workspace --test it --no-run 2>&1 | tee "$out/build.txt" | tail -n 3
it=$(sed -n 's/^ *Executable it\/main\.rs (\(.*\))$/\1/p' "$out/build.txt")
[[ $it == /* ]] || it=$PWD/$it
site=$target/debug/tidegate-under-test
if ! [ -x "$it" ] || ! [ -x "$site" ]; then
  echo "nothing was built: $it $site"
  exit 1
fi
printf '%5d s  build\n' $((SECONDS - begin))

# As they are. The tests run in the folder of their package, as cargo would have them.
begin=$SECONDS
mapfile -t tests < <(awk '{ print $2 }' <<<"$rows")
if ! (cd tests && "$it" --exact "${tests[@]}") >"$out/without.txt" 2>&1 ||
  ! grep -q "^test result: ok. $count passed" "$out/without.txt"; then
  tail -n 100 "$out/without.txt"
  echo "without a bug the $count tests do not pass"
  exit 1
fi
printf '%5d s  without a bug %d tests pass\n' $((SECONDS - begin)) "$count"

# With its bug each fails. Most of them then wait in vain for something, so they wait together.
begin=$SECONDS
with() { # number, test, bug
  if ! TIDEGATE_TEST_PLANT=$3 "$site" --version >/dev/null 2>"$out/$3.txt"; then
    cat "$out/$3.txt"
    return 1
  fi
  if (cd tests && TIDEGATE_TEST_PLANT=$3 "$it" --exact "$2") >"$out/$3.txt" 2>&1; then
    echo "W$1: $2 passes with $3 in it"
    return 1
  fi
  # It failed, and not because there was no site.
  if ! grep -q "^test $2 \.\.\. FAILED" "$out/$3.txt" || grep -q "the site ended at its start" "$out/$3.txt"; then
    tail -n 50 "$out/$3.txt"
    echo "W$1: $2 did not fail of $3"
    return 1
  fi
}
running=()
while read -r number test bug; do
  with "$number" "$test" "$bug" &
  running+=($!)
done <<<"$rows"
failed=0
for one in "${running[@]}"; do wait "$one" || failed=$((failed + 1)); done
printf '%5d s  %d of %d tests fail with their bug\n' $((SECONDS - begin)) $((count - failed)) "$count"
((failed == 0))
