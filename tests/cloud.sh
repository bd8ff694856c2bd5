#!/usr/bin/env bash
# Starts a server and runs the tests that need a bucket, which `cargo test` ignores by default.
# Arguments, such as a part of the names of tests, are passed to the tests.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! . tests/tools/bucket.sh; then
    echo 'SKIPPED: the tests of buckets, because versitygw cannot be installed here (is Go there?)'
    echo '0 passed; 0 failed; 1 skipped'
    exit 0
fi
cargo test --workspace --locked --lib --test cli -- --ignored s3 "$@"
