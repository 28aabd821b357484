#!/usr/bin/env bash
# Whether every test that a table of docs/protocol.md names did run and pass. Reads what `cargo test --workspace` printed,
# standard error too: that says whose tests follow.
# Usage: tests/table.sh <file>
set -euo pipefail
cd "$(dirname "$0")/.."
printed=${1:?what cargo test printed}
if ! [ -s "$printed" ]; then
  echo "$printed is empty: no test ran"
  exit 1
fi
named=$(mktemp)
trap 'rm -f "$named"' EXIT
sed -n '/^## Compared with the predecessor/,$p' docs/protocol.md |
  grep -oE '`(it|core|runtime|sim)(::[a-z0-9_]+)+`' | tr -d '`' | sort -u >"$named"

# Each line of the run becomes a name with its package in front; those that passed are taken off the list.
awk -v list="$named" '
  BEGIN {
    of["tidegate_core"] = "core"; of["tidegate_runtime"] = "runtime"; of["tidegate_sim"] = "sim"
    while ((getline name < list) > 0) { wanted[name] = 1; all++ }
  }
  /^ *Running .*\(.*\)$/ {
    package = $NF; sub(/.*\//, "", package); sub(/-[0-9a-f]+\)$/, "", package); package = of[package]
    # Another package has tests of this name, too.
    if ($0 ~ /Running it\/main\.rs /) package = "it"
  }
  /^ *Doc-tests / { package = "" }
  /^test .* \.\.\. / && package != "" {
    name = package "::" $2
    if (name in wanted) {
      if ($0 ~ / \.\.\. ok$/) delete wanted[name]
      else why[name] = $0
    }
  }
  END {
    for (name in wanted) {
      missing++
      print "named in docs/protocol.md, and did not pass: " name (name in why ? " (" why[name] ")" : "")
    }
    printf "%d tests are named in docs/protocol.md, %d of them did not run or did not pass\n", all, missing
    exit !(all > 0 && missing == 0)
  }' "$printed"
