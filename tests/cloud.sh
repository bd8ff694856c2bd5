#!/usr/bin/env bash
# Runs the tests that need a bucket, which are ignored otherwise: starts an S3-compatible server on the loopback interface, with a new bucket, and ends it
# afterwards. Arguments are passed to the tests, such as a part of their names.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! server=$(tests/tools/versitygw.sh); then
    echo 'SKIPPED: the tests of buckets, because versitygw cannot be installed here (is Go there?)'
    echo '0 passed; 0 failed; 1 skipped'
    exit 0
fi

folder=$(mktemp -d)
mkdir -p "$folder/data/voxloom-test"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export AWS_ACCESS_KEY_ID=voxloom AWS_SECRET_ACCESS_KEY=loopback-only AWS_REGION=us-east-1
export AWS_ENDPOINT_URL=http://127.0.0.1:$port VOXLOOM_TEST_BUCKET=s3://voxloom-test
ROOT_ACCESS_KEY_ID=$AWS_ACCESS_KEY_ID ROOT_SECRET_ACCESS_KEY=$AWS_SECRET_ACCESS_KEY \
    timeout 1800 "$server" --port "127.0.0.1:$port" posix "$folder/data" > "$folder/log" 2>&1 &
pid=$!
trap 'kill $pid 2> /dev/null || true; wait $pid 2> /dev/null || true; rm -rf "$folder"' EXIT
for _ in $(seq 100); do
    if python3 -c "import socket; socket.create_connection(('127.0.0.1', $port), 1).close()" 2> /dev/null; then break; fi
    kill -0 $pid 2> /dev/null || { cat "$folder/log" >&2; exit 1; }
    sleep 0.1
done

cargo test --workspace --locked --lib --test cli -- --ignored s3 "$@"
