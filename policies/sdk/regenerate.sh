#!/usr/bin/env bash
# Writes again what is generated from policies/wit: the bindings of the SDK (Rust) and of the C projects. Only needed when
# the contract changes. Needs wit-bindgen 0.61.1:
#   cargo install wit-bindgen-cli --version 0.61.1 --no-default-features --features c,rust
set -euo pipefail
cd "$(dirname "$0")"
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT

wit-bindgen rust ../wit --world suite --out-dir "$made" --pub-export-macro --runtime-path crate::rt -d PartialEq -d Eq
# The component types are left out: `tidegate policy build` writes them, from what a module really exports.
{
  echo "//! The contract in Rust, generated from policies/wit by regenerate.sh: never edited by hand."
  awk '
    /#\[used\]/ { held = $0; next }
    held != "" && /#\[doc\(hidden\)\]/ { held = held "\n" $0; next }
    held != "" && /static __FORCE_SECTION_REF/ { held = ""; skip = 1; next }
    skip { skip = 0; next }
    held != "" { print held; held = "" }
    /^\/\/\/ Generates `#\[unsafe\(no_mangle\)\]`/ { exit }
    { print }
  ' "$made/suite.rs"
} >src/bindings.rs

for hook in auto-scan retry concurrency bandwidth order; do
  rm -rf "c/gen/$hook"
  mkdir -p "c/gen/$hook"
  wit-bindgen c ../wit --world "$hook-policy" --rename-world contract --no-object-file --out-dir "c/gen/$hook"
  sed -i '/^\/\/ Ensure that the \*_component_type.o/,$d' "c/gen/$hook/contract.c"
done
