# Tests of stack.sh; run.sh sources this file after stage.sh.
# shellcheck shell=bash

# stack_sh OUT ARGUMENTS...: aligns the sections of a phantom, which are made first.
stack_sh() {
    if [ ! -e "$scene/stack/truth.json" ]; then
        phantom sections --size 9,224,240 --max-shift 10 --max-displacement 5 --wavelength 160 --defects 0 --seed 4 -o "$scene/stack"
    fi
    local out=$1
    shift
    "$root/workflows/stack.sh" "$scene/stack/sections.zarr" "$scene/$out" --passes '2:40:16 1:48:8' "$@"
}

a_stack_is_aligned() {
    stack_sh stacked
    phantom score --truth stack --transform stacked/pass2.json > score
    python -c '
import json
score = json.load(open("score"))
assert score["worst_section"] < 0.4 and score["drift"] < 1, score
'
    [ "$(wc -l < stacked/summary.tsv)" = 16 ]
    [ -e stacked/aligned.zarr/1 ]
    touch before
    stack_sh stacked
    [ -z "$(find stacked -newer before -type f)" ]
}

a_stack_goes_on_after_a_kill() {
    stack_sh killed-stack & # the phantom is there
    local script=$!
    wait_for killed-stack/receipts/clean-flow-1-1.json $script
    pkill -9 -P $script || true
    kill -9 $script || true
    wait $script || true
    [ ! -e killed-stack/summary.tsv ]
    stack_sh killed-stack
    cmp killed-stack/summary.tsv stacked/summary.tsv
    for array in pass1.zarr pass2.zarr aligned.zarr; do
        diff -r -x zarr.json "killed-stack/$array" "stacked/$array"
    done
}

a_stack_refuses_what_does_not_fit() {
    fails stack_sh stacked --distance 1 2> refusal
    grep -q "was begun with another stack or other parameters" refusal
    fails stack_sh others --distance 0 2> refusal
    grep -q -- "--distance 0 is not a number from 1" refusal
    fails "$root/workflows/stack.sh" stack/none.zarr others 2> refusal
    grep -q "there is no .*none.zarr" refusal
    fails "$root/workflows/stack.sh" stack/sections.zarr others --passes 4:40 2> refusal
    grep -q "the pass 4:40 is not REDUCTION:PATCH:SEARCH" refusal
    fails "$root/workflows/stack.sh" stack/sections.zarr stack/sections.zarr 2> refusal
    grep -q "is a volume; OUT is the folder" refusal
    [ ! -e others ]
}
