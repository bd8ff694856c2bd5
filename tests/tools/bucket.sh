# Starts an S3-compatible server on the loopback interface with a new bucket; the server ends when
# the shell that sources this file ends. Sets the AWS_* variables by which programs find the server,
# and sets VOXLOOM_TEST_BUCKET to the address of the bucket and `bucket` to the folder that contains
# its objects as files. Returns 1 if the server cannot be installed.
# shellcheck shell=bash
server=$("$(dirname "${BASH_SOURCE[0]}")/versitygw.sh") || return 1

s3=$(mktemp -d)
bucket=$s3/data/voxloom-test
mkdir -p "$bucket"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export AWS_ACCESS_KEY_ID=voxloom AWS_SECRET_ACCESS_KEY=loopback-only AWS_REGION=us-east-1
export AWS_ENDPOINT_URL=http://127.0.0.1:$port VOXLOOM_TEST_BUCKET=s3://voxloom-test
ROOT_ACCESS_KEY_ID=$AWS_ACCESS_KEY_ID ROOT_SECRET_ACCESS_KEY=$AWS_SECRET_ACCESS_KEY \
    timeout 1800 "$server" --port "127.0.0.1:$port" posix "$s3/data" > "$s3/log" 2>&1 &
pid=$!
trap 'kill $pid 2> /dev/null || true; wait $pid 2> /dev/null || true; rm -rf "$s3"' EXIT
for _ in $(seq 100); do
    if python3 -c "import socket; socket.create_connection(('127.0.0.1', $port), 1).close()" 2> /dev/null; then break; fi
    kill -0 $pid 2> /dev/null || { cat "$s3/log" >&2; exit 1; }
    sleep 0.1
done
