#!/usr/bin/env bash
# Prints the bin folder of a Python environment that holds tests/tools/requirements.txt; makes it in
# the cache first where it is not there yet. Needs Python 3.11 or newer with venv.
# Two of these at once do no harm: the first to finish is kept.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=${VOXLOOM_CACHE:-$HOME/.cache/voxloom}
sum=$(cksum < "$here/requirements.txt")
home=$cache/python-${sum%% *}

if [ ! -x "$home/bin/snakemake" ]; then
    mkdir -p "$cache"
    new=$(mktemp -d "$home.XXXXXX")
    trap 'rm -rf "$new"' EXIT
    "${PYTHON:-python3}" -m venv "$new" >&2
    "$new/bin/python" -m pip install -q -r "$here/requirements.txt" >&2
    # The programs in it know it by the name it was made under, so it is linked, not renamed.
    if ln -sn "$(basename "$new")" "$home" 2>/dev/null; then trap - EXIT; fi
fi
echo "$home/bin"
