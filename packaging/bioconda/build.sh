#!/usr/bin/env bash
set -euo pipefail

# Link zlib statically, as the other C libraries are, so that the programs need none at run time.
export LIBZ_SYS_STATIC=1

cargo-bundle-licenses --format yaml --output THIRDPARTY.yml
make install PREFIX="$PREFIX"
