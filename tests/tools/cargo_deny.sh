#!/usr/bin/env bash
# Prints the path of cargo-deny. If it is not on PATH, it is built once into the cache folder.
set -euo pipefail

if command -v cargo-deny > /dev/null; then
    command -v cargo-deny
    exit
fi
tools=${VOXLOOM_CACHE:-$HOME/.cache/voxloom}/tools
if [ ! -x "$tools/bin/cargo-deny" ]; then
    # a debug build is enough: cargo-deny takes minutes to build and only seconds to run
    CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --debug --locked --version 0.20.2 --root "$tools" cargo-deny >&2
fi
echo "$tools/bin/cargo-deny"
