#!/usr/bin/env bash
# Prints the path of versitygw, an S3-compatible server. If it is not on PATH, it is built once into
# the cache folder. Needs Go. docs/decisions/0014-buckets-by-object-store.md gives the reasons for
# this server.
set -euo pipefail

version=v1.8.0

if command -v versitygw; then exit 0; fi
tools=${VOXLOOM_CACHE:-$HOME/.cache/voxloom}/tools
if [ ! -x "$tools/bin/versitygw-$version" ]; then
    new=$(mktemp -d)
    trap 'rm -rf "$new"' EXIT
    GOBIN=$new CGO_ENABLED=0 go install -trimpath -ldflags='-s -w' "github.com/versity/versitygw/cmd/versitygw@$version" >&2
    mkdir -p "$tools/bin"
    # a rename is atomic only within one file system
    cp "$new/versitygw" "$tools/bin/.versitygw.$$"
    mv -f "$tools/bin/.versitygw.$$" "$tools/bin/versitygw-$version"
fi
echo "$tools/bin/versitygw-$version"
