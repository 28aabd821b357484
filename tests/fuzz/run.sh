#!/usr/bin/env bash
# Fuzzes with libFuzzer on the stable compiler. See --help.
set -euo pipefail
cd "$(dirname "$0")/../.."

core="recorder_frame transfer_frame params row key journal_entry step"
runtime="config sidecar spool"

usage() {
  cat <<END
usage: tests/fuzz/run.sh [TARGET|core|all] [SECONDS]
       tests/fuzz/run.sh --minimise TARGET|core|all

Runs each target for SECONDS (60 unless given) from the committed corpus. The default is core: what needs only the core
crate, and builds in half a minute.

  core     $core
  runtime  $runtime
  all      both

New inputs are kept in target/fuzz/corpus/TARGET and used again by the next run; --minimise puts the smallest set of them
that reaches as much into tests/fuzz/corpus/TARGET. An input that makes a target panic is written to
target/fuzz/found/TARGET and ends the run with an error. Once mended, put it into tests/fuzz/corpus/TARGET under a name
that says what went wrong: cargo test -p tidegate-fuzz-targets replays it from then on.

It needs a C++ compiler, for the engine.
END
}

minimise=no
case "${1:-}" in
-h | --help) usage && exit 0 ;;
--minimise) minimise=yes && shift ;;
esac
which=${1:-core}
seconds=${2:-60}
case " $core $runtime " in
*" $which "*) targets=$which ;;
*)
  case $which in
  core) targets=$core ;;
  all) targets="$core $runtime" ;;
  *) usage >&2 && exit 2 ;;
  esac
  ;;
esac
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { usage >&2 && exit 2; }

features=()
for target in $targets; do
  case " $runtime " in *" $target "*) features=(--features runtime) ;; esac
done

# Named, so that build scripts and macros stay free of the instruments.
host=$(rustc -vV | sed -n 's/^host: //p')
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
flags+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
flags+=" -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
RUSTFLAGS=$flags CARGO_TARGET_DIR=target/fuzz/build \
  cargo build --release --quiet --target "$host" --manifest-path tests/fuzz/engine/Cargo.toml ${features[@]+"${features[@]}"}
program=target/fuzz/build/$host/release/tidegate-fuzz

for target in $targets; do
  mkdir -p "target/fuzz/corpus/$target" "target/fuzz/found/$target" "tests/fuzz/corpus/$target"
  export TIDEGATE_FUZZ=$target
  if [[ $minimise == yes ]]; then
    fresh=$(mktemp -d)
    "$program" -merge=1 -use_counters=0 "$fresh" "tests/fuzz/corpus/$target" "target/fuzz/corpus/$target" 2>&1 | grep -E 'MERGE-OUTER: [0-9]+ new' || true
    # By edges alone, not by how often each is taken: that would keep ten times as many.
    # What has a name was found once, and stays.
    find "tests/fuzz/corpus/$target" -type f -regextype posix-extended -regex '.*/[0-9a-f]{40}' -delete
    cp -n "$fresh"/* "tests/fuzz/corpus/$target/" 2>/dev/null || true
    rm -rf "$fresh"
    continue
  fi
  printf '%s: ' "$target"
  log=target/fuzz/$target.log
  if ! "$program" "target/fuzz/corpus/$target" "tests/fuzz/corpus/$target" -max_total_time="$seconds" \
    -dict=tests/fuzz/words.dict -max_len=8192 -rss_limit_mb=1024 -timeout=10 \
    -artifact_prefix="target/fuzz/found/$target/" >"$log" 2>&1; then
    echo "FAILED"
    grep -v '^INFO\|^#' "$log" | head -40
    exit 1
  fi
  # From the first line with figures to the last: whether coverage still grows.
  sed -n 's/^#\([0-9]*\)[[:space:]]*\(INITED\|DONE\) *cov: \([0-9]*\) ft: \([0-9]*\) corp: \([0-9]*\)[^ ]*.*/\2 \1 inputs, coverage \3, \5 kept/p' "$log" | paste -sd ';'
done
