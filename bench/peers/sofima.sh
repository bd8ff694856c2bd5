#!/usr/bin/env bash
# Prints a Python with SOFIMA. The package `sofima` of the index installs no module, since its
# sources lie at the top of the archive: they are unpacked into a folder of that name.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
python=$("$here/../../tests/tools/python.sh" "$here/sofima.txt")/python
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
if [ ! -e "$packages/sofima/flow_field.py" ]; then
    new=$(mktemp -d "$packages/new.XXXXXX")
    trap 'rm -rf "$new"' EXIT
    "$python" -m pip download -q --no-deps --no-binary :all: -d "$new" sofima==0.1 >&2
    tar -xzf "$new"/sofima-0.1.tar.gz -C "$new"
    mkdir -p "$packages/sofima"
    cp "$new"/sofima-0.1/*.py "$packages/sofima/"
fi
echo "$python"
