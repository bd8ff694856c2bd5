#!/usr/bin/env bash
# Runs every fuzzer, or only the given ones, for SECONDS each, and prints the result of each.
#   fuzz/run.sh SECONDS [TARGET...]
# Needs a nightly Rust and cargo-fuzz. New inputs are stored in fuzz/corpus, and inputs that cause a
# failure in fuzz/artifacts; Git ignores both folders.
set -euo pipefail
cd "$(dirname "$0")"

seconds=$1
shift
targets=("$@")
if [ $# = 0 ]; then mapfile -t targets < <(cargo +nightly fuzz list --fuzz-dir .); fi

# the files are kept in memory, since most of the time would be spent in the file system otherwise
memory=$(mktemp -d "$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")/voxloom-fuzz.XXXXXX")
log=$(mktemp)
trap 'rm -rf "$memory" "$log"' EXIT

wrong=0
for target in "${targets[@]}"; do
    mkdir -p "corpus/$target"
    if TMPDIR=$memory cargo +nightly fuzz run --fuzz-dir . -s none "$target" "corpus/$target" "seeds/$target" -- \
        -max_total_time="$seconds" -max_len=4096 -timeout=4 -rss_limit_mb=1024 -print_final_stats=1 > "$log" 2>&1
    then
        end=well
    else
        end="WRONG: $(grep -m1 -E 'panicked|ERROR: libFuzzer' "$log" || tail -n 1 "$log")"
        grep -A 3 -m1 panicked "$log" || tail -n 20 "$log"
        wrong=1
    fi
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    echo "$target: ${runs:-no} inputs in $seconds s, $end"
    rm -rf "${memory:?}"/*
done
exit $wrong
