#!/usr/bin/env bash
# Runs the tests that need a bucket, which are ignored otherwise, with a server of their own. Arguments are passed to the tests, such as a part of their names.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! . tests/tools/bucket.sh; then
    echo 'SKIPPED: the tests of buckets, because versitygw cannot be installed here (is Go there?)'
    echo '0 passed; 0 failed; 1 skipped'
    exit 0
fi
cargo test --workspace --locked --lib --test cli -- --ignored s3 "$@"
