#!/usr/bin/env bash
# Prints the path of Nextflow. If it is not on PATH, it is installed into the cache. Needs Java 17.
# Concurrent calls are safe: the installation that is complete first is kept.
set -euo pipefail

if command -v nextflow; then exit 0; fi

here=$(cd "$(dirname "$0")" && pwd)
cache=${VOXLOOM_CACHE:-$HOME/.cache/voxloom}
home=$cache/nextflow-25.04.0

if [ ! -x "$home/nextflow" ]; then
    mkdir -p "$cache"
    new=$(mktemp -d "$home.XXXXXX")
    trap 'rm -rf "$new"' EXIT
    mvn=$("$here/maven.sh")
    "$mvn" -q -B -f "$here/pom.xml" -Dmaven.repo.local="$new/repository" \
        dependency:copy-dependencies -DoutputDirectory="$new/jars" -DincludeScope=runtime >&2
    rm -rf "$new/repository"
    install -m 755 "$here/nextflow-launcher.sh" "$new/nextflow"
    # Creating a link is atomic, and fails if the link exists already.
    if ln -sn "$(basename "$new")" "$home" 2>/dev/null; then trap - EXIT; fi
fi
echo "$home/nextflow"
