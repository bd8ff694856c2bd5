# Tests of stack.sh; run.sh sources this file after stage.sh.
# shellcheck shell=bash

# stack_sh OUT ARGUMENTS...: aligns the sections of a phantom, which are made first.
stack_sh() {
    if [ ! -e "$scene/stack/truth.json" ]; then
        phantom sections --size 9,224,240 --max-shift 10 --max-rotation 180 --max-displacement 5 --wavelength 160 --defects 0 --seed 4 -o "$scene/stack"
    fi
    local out=$1
    shift
    "$root/workflows/stack.sh" "$scene/stack/sections.zarr" "$scene/$out" --passes '2:40:16 1:48:8' "$@"
}

a_stack_is_aligned() {
    stack_sh stacked
    phantom score --truth stack --transform stacked/aligned.json > score
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
    rm -r stacked/aligned.zarr
    stack_sh stacked
    [ -e stacked/aligned.zarr/1 ]
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
        diff -r -x zarr.json -x .voxloom "killed-stack/$array" "stacked/$array"
    done
}

sections_that_have_changed_are_not_taken_for_the_old_ones() {
    mkdir changed
    section() { python -c 'import sys, tifffile, zarr; z = int(sys.argv[1]); tifffile.imwrite(f"changed/{z}.tif", zarr.open("stack/sections.zarr", mode="r")["0"][z])' "$1"; }
    for z in 0 1 2; do section $z; done
    "$root/workflows/stack.sh" changed changed-out --spacing 0.05,0.01,0.01 --passes 2:40:16
    section 3
    fails "$root/workflows/stack.sh" changed changed-out --spacing 0.05,0.01,0.01 --passes 2:40:16 2> refusal
    grep -q "its files have changed since" refusal
    "$root/workflows/stack.sh" changed changed-out --spacing 0.05,0.01,0.01 --passes 2:40:16 --overwrite
    inspect changed-out/aligned.zarr | grep -q "4 x 224 x 240"
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
    grep -q "OUT lies in the stack" refusal
    python -c 'import numpy; numpy.save("unknown.npy", numpy.zeros((3, 64, 64), "u1"))'
    fails "$root/workflows/stack.sh" unknown.npy others 2> refusal
    grep -q "does not say the size of its pixels" refusal
    [ ! -e others ]
}

# All tests of stack.sh.
test_stacks() {
    it "stack.sh aligns a stack, and does nothing twice" a_stack_is_aligned
    it "stack.sh goes on after kill -9" a_stack_goes_on_after_a_kill
    it "stack.sh does not take changed sections for the old ones" sections_that_have_changed_are_not_taken_for_the_old_ones
    it "stack.sh refuses what does not fit" a_stack_refuses_what_does_not_fit
}
