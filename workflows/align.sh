#!/usr/bin/env bash
# Aligns MOVING to FIXED on this machine, without a workflow engine.
#
#   workflows/align.sh FIXED MOVING OUT [--params FILE] [--parts N]
#
# Stopped or failed? The same line again goes on where it was: a step that has its receipt in
# OUT/receipts is done. The programs are taken from VOXLOOM_BIN, else from PATH.
set -euo pipefail

usage() {
    echo "usage: align.sh FIXED MOVING OUT [--params FILE] [--parts N]" >&2
    exit 2
}

complain() {
    echo "align.sh: $1" >&2
    exit 2
}

absolute() {
    case $1 in
        /* | *://*) printf '%s' "$1" ;;
        *) printf '%s' "$PWD/$1" ;;
    esac
}

locations=() params= parts=1
while [ $# -gt 0 ]; do
    case $1 in
        --params) params=${2:-} && shift 2 || usage ;;
        --parts) parts=${2:-} && shift 2 || usage ;;
        -h | --help) usage ;;
        -*) complain "unknown option $1; known are --params and --parts" ;;
        *) locations+=("$(absolute "$1")") && shift ;;
    esac
done
[ ${#locations[@]} -eq 3 ] || usage
case $parts in '' | *[!0-9]* | 0*) complain "--parts $parts is not a number from 1" ;; esac

fixed=${locations[0]} moving=${locations[1]} out=${locations[2]}
export PATH="${VOXLOOM_BIN:+$VOXLOOM_BIN:}$PATH"
command -v extract-spots > /dev/null || complain "extract-spots is not on PATH; set VOXLOOM_BIN to the folder of the programs"

# What the results are made from is kept with them: another pair or other parameters need another OUT.
wanted=$(
    printf '# fixed: %s\n# moving: %s\n' "$fixed" "$moving"
    if [ -n "$params" ]; then cat -- "$params"; else echo '{}'; fi
)
config=$out/params.yaml
if [ ! -e "$config" ]; then
    mkdir -p "$out"/{spots,transforms,receipts}
    printf '%s\n' "$wanted" > "$config.$$"
    mv "$config.$$" "$config"
elif [ "$wanted" != "$(cat "$config")" ]; then
    complain "$out was begun with other volumes or parameters ($config); give those, or name another OUT"
fi

# step NAME PROGRAM ARGUMENTS...: runs it unless its receipt is there; a passing fault (75) twice more.
step() {
    local name=$1 receipt=$out/receipts/$1.json code=0
    shift
    if [ -e "$receipt" ]; then return; fi
    echo "align.sh: $name" >&2
    for pause in 5 30 0; do
        code=0
        "$@" --config "$config" --receipt "$receipt" || code=$?
        if [ $code -ne 75 ]; then break; fi
        sleep "$pause"
    done
    if [ $code -ne 0 ]; then
        echo "align.sh: $name ended with exit code $code; the same command line goes on from there" >&2
        exit $code
    fi
}

# scatter NAME PROGRAM ARGUMENTS...: in one go, or its parts one by one and then what needs them all.
scatter() {
    local name=$1 k
    shift
    if [ "$parts" -eq 1 ]; then
        step "$name" "$@" --resume
    elif [ ! -e "$out/receipts/$name.json" ]; then
        for ((k = 1; k <= parts; k++)); do
            step "$name.part-$k-$parts" "$@" --part "$k/$parts" --resume
        done
        step "$name" "$@" --finish --resume
    fi
}

for volume in fixed moving; do
    scatter extract-spots-$volume extract-spots "${!volume}" --output "$out/spots/$volume.csv"
done

step ransac ransac "$fixed" "$moving" \
    --fixed-spots "$out/spots/fixed.csv" --moving-spots "$out/spots/moving.csv" \
    --output "$out/transforms/global.json" --matches "$out/spots/matches.csv" --overwrite

scatter local-affine local-affine "$fixed" "$moving" --initial "$out/transforms/global.json" \
    --output "$out/transforms/local.zarr" --table "$out/transforms/blocks.csv"

scatter apply-transform-global apply-transform "$moving" --onto "$fixed" \
    --transform "$out/transforms/global.json" --output "$out/global.zarr"

scatter apply-transform-local apply-transform "$moving" --onto "$fixed" \
    --transform "$out/transforms/local.zarr" --output "$out/aligned.zarr"

step downsample downsample "$out/aligned.zarr" --resume

receipts=()
for name in extract-spots-{fixed,moving} ransac local-affine apply-transform-{global,local} downsample; do
    receipts+=("$out/receipts/$name.json")
done
step report report "${receipts[@]}" --fixed "$fixed" --moving "$moving" \
    --stage "global=$out/global.zarr" --stage "local=$out/aligned.zarr" \
    --matches "$out/spots/matches.csv" --fixed-spots "$out/spots/fixed.csv" \
    --blocks-table "$out/transforms/blocks.csv" --output "$out/report.html" --overwrite

echo "$out/report.html"
