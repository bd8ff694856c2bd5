#!/usr/bin/env bash
# Prints the bin folder of a Python environment that holds the given requirement files (default: the
# tests' own, beside this script); makes it in the cache first where it is not there yet.
# What a file named *-nodeps.txt lists is installed without its dependencies.
# Needs Python 3.11 or newer with venv. Two of these at once do no harm: the first to finish is kept.
set -euo pipefail

if [ $# -eq 0 ]; then set -- "$(dirname "$0")/requirements.txt"; fi
cache=${VOXLOOM_CACHE:-$HOME/.cache/voxloom}
sum=$(cat "$@" | cksum)
home=$cache/python-${sum%% *}

if [ ! -x "$home/bin/python" ]; then
    mkdir -p "$cache"
    new=$(mktemp -d "$home.XXXXXX")
    trap 'rm -rf "$new"' EXIT
    "${PYTHON:-python3}" -m venv "$new" >&2
    for file in "$@"; do
        case $file in *-nodeps.txt) dependencies=--no-deps ;; *) dependencies= ;; esac
        "$new/bin/python" -m pip install -q $dependencies -r "$file" >&2
    done
    # The programs in it know it by the name it was made under, so it is linked, not renamed.
    if ln -sn "$(basename "$new")" "$home" 2>/dev/null; then trap - EXIT; fi
fi
echo "$home/bin"
