#!/usr/bin/env bash
# Prints the bin folder of a Python environment with the packages of the given requirement files
# (default: requirements.txt beside this script). The environment is created in the cache if it does
# not exist. The packages of a file named *-nodeps.txt are installed without their dependencies.
# Needs Python 3.11 or newer with venv. Concurrent calls are safe: the environment that is complete
# first is kept.
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
    # The scripts of the environment contain its path, so its folder is linked and not renamed.
    if ln -sn "$(basename "$new")" "$home" 2>/dev/null; then trap - EXIT; fi
fi
echo "$home/bin"
