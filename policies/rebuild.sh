#!/usr/bin/env bash
# Builds the committed policies again from their sources. With the pinned compilers the bytes must be the same; what
# another compiler makes must answer like the committed modules, and it is said aloud that bytes were not compared. What
# nothing here can build is skipped aloud. In continuous integration the pinned compilers are installed first, if the
# distribution still has them.
set -euo pipefail
cd "$(dirname "$0")/.."
made="${CARGO_TARGET_DIR:-target}/policies/unpinned"

if [ "${CI:-}" = true ] && ! { [ -d /usr/src/rustc-1.96.0/library ] && command -v clang-19 wasm-ld-19 >/dev/null; }; then
  apt=(apt-get)
  [ "$(id -u)" = 0 ] || apt=(sudo apt-get)
  "${apt[@]}" update -qq || true
  "${apt[@]}" install -y -qq --no-install-recommends rustc-web rust-web-src || echo "the pinned Rust compiler is not to be had"
  "${apt[@]}" install -y -qq --no-install-recommends clang-19 lld-19 || echo "the pinned C compiler is not to be had"
fi

rm -rf "$made"
# --workspace: with the features that everything else is built with, so that nothing is built twice.
cargo build -q --workspace --example rebuild
"${CARGO_TARGET_DIR:-target}/debug/examples/rebuild" --out "$made"
if compgen -G "$made/*.wasm" >/dev/null; then
  echo "what was built with other compilers, against vectors and native rules:"
  TIDEGATE_POLICIES_BUILT=$(cd "$made" && pwd) cargo test -q --workspace --test guests -- vectors native agree
fi
