# The test of align.sh with volumes in a bucket; run.sh sources this file after it has set `here`
# and `root`.
# shellcheck shell=bash

# same_in_bucket OUT: checks that the bucket has the same volumes and transforms as the local run
# OUT, and that bucket-sh has the same table of spots.
same_in_bucket() {
    local volume
    for volume in aligned.zarr global.zarr transforms/local.zarr transforms/inverse.zarr; do
        diff -r -x zarr.json -x '.voxloom*' "$1/$volume" "$bucket/run/$volume"
    done
    diff "$1/spots/moving.csv" bucket-sh/spots/moving.csv
}

from_bucket_to_bucket() {
    # the server ends with this test, because the test runs in a shell of its own
    . "$here/../tools/bucket.sh"
    cp -r near "$bucket/near"
    local from=s3://voxloom-test/near data=s3://voxloom-test/run
    local line=("$root/workflows/align.sh" $from/fixed.zarr $from/moving.zarr bucket-sh --until local --data $data --params)
    fails "$root/workflows/align.sh" $from/fixed.zarr $from/moving.zarr $data 2> refusal
    grep -q "give --data" refusal
    "${line[@]}" params.yaml --parts 2
    if [ ! -e pair/report.html ]; then align_sh pair "${pair[@]}"; fi
    same_in_bucket pair
    [ -e bucket-sh/report.html ]
    [ ! -e bucket-sh/aligned.zarr ]
    # a second run does nothing, and a run with other parameters replaces the outputs that they
    # affect
    touch before
    "${line[@]}" params.yaml --parts 2
    [ -z "$(find bucket-sh -newer before -type f)" ]
    { cat params.yaml; echo 'ransac: {min-inliers: 7}'; echo 'local-affine: {min-matches: 9}'; } > stricter.yaml
    "${line[@]}" stricter.yaml --parts 2 --overwrite
    "$root/workflows/align.sh" near/fixed.zarr near/moving.zarr stricter-sh --until local --params stricter.yaml
    same_in_bucket stricter-sh
    # --data can also be another folder of this machine
    "$root/workflows/align.sh" near/fixed.zarr near/moving.zarr apart-sh --until global --data apart-data --params params.yaml
    [ -e apart-data/aligned.zarr ]
    [ -e apart-sh/report.html ]
    [ ! -e apart-sh/aligned.zarr ]
}
