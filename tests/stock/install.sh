#!/usr/bin/env bash
# Installs the stock S3 clients that the tests drive the embedded endpoint with, into a private environment:
# target/stock/. Nothing outside that folder is changed, except the package manager's own lists.
#   aws     from PyPI (package awscli), in a virtual environment
#   rclone  from the distribution's package, unpacked, not installed
set -euo pipefail
cd "$(dirname "$0")/../.."
dir="${CARGO_TARGET_DIR:-target}/stock"
mkdir -p "$dir/bin"
dir=$(cd "$dir" && pwd)

if ! "$dir/bin/aws" --version >/dev/null 2>&1; then
  echo "installing the aws command line into $dir"
  python3 -m venv "$dir/venv"
  "$dir/venv/bin/pip" install --quiet --disable-pip-version-check 'awscli>=1.44,<2'
  ln -sf ../venv/bin/aws "$dir/bin/aws"
fi
if ! "$dir/bin/rclone" version >/dev/null 2>&1; then
  if command -v rclone >/dev/null 2>&1; then
    ln -sf "$(command -v rclone)" "$dir/bin/rclone"
  else
    echo "unpacking rclone into $dir"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    chmod 755 "$work"
    (cd "$work" && { apt-get download rclone >/dev/null 2>&1 || { apt-get update -qq && apt-get download rclone >/dev/null; }; })
    dpkg -x "$work"/rclone_*.deb "$dir/rclone"
    ln -sf ../rclone/usr/bin/rclone "$dir/bin/rclone"
  fi
fi
"$dir/bin/aws" --version
"$dir/bin/rclone" version | head -n 1
