#!/usr/bin/env bash
# Aligns volumes to FIXED on this machine, without a workflow engine: the volume MOVING, or all
# rounds of a samplesheet.
#
#   workflows/align.sh FIXED MOVING OUT [--params FILE] [--parts N] [--until STAGE] [--onto VOLUME] [--data LOCATION] [--overwrite]
#   workflows/align.sh FIXED OUT --samplesheet FILE ...
#
# Volumes can be in buckets. --data s3://BUCKET/NAME writes volumes and transforms there; tables and
# reports are always written to OUT, a local folder. After an interruption or a failure, the same
# command line continues the work: a step that has a receipt is not repeated. With other parameters,
# --overwrite repeats the first step that they affect and all later steps. The programs are taken
# from VOXLOOM_BIN, else from PATH.
set -euo pipefail
# An interrupted program can still succeed if it was in its last block; these traps prevent the next
# steps from starting.
trap 'exit 130' INT
trap 'exit 143' TERM

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR
me=align.sh && . "$here/steps.sh"

usage() {
    echo "usage: align.sh FIXED MOVING OUT [--params FILE] [--parts N] [--until global|local|deform] [--onto VOLUME] [--data LOCATION] [--overwrite]" >&2
    echo "       align.sh FIXED OUT --samplesheet FILE ..." >&2
    exit 2
}

locations=() params= parts= until= onto= samplesheet= data= overwrite=
while [ $# -gt 0 ]; do
    case $1 in
        --params | --parts | --until | --onto | --samplesheet | --data)
            [ -n "${2:-}" ] || complain "$1 lacks its value"
            printf -v "${1#--}" %s "$2"
            shift 2
            ;;
        --overwrite) overwrite=1 && shift ;;
        -h | --help) usage ;;
        -*) complain "unknown option $1; known are --params, --parts, --until, --onto, --samplesheet, --data and --overwrite" ;;
        *) locations+=("$(absolute "$1")") && shift ;;
    esac
done

[ -z "$params" ] || [ -r "$params" ] || complain "there is no parameters file $params"

# Settings that are not on the command line can be top-level keys of the parameters file.
for name in parts until onto samplesheet; do
    if [ -z "${!name}" ] && [ -n "$params" ]; then
        said=$(sed -nE "s/(^|[[:space:]])#.*//; s/^(.*[{, ])?[\"']?$name[\"']? *: *[\"']?([^\"',}]*[^\"',} ]).*/\2/p" "$params")
        printf -v "$name" %s "$said"
    fi
done
case ${parts:=1} in *[!0-9]* | 0*) complain "--parts $parts is not a number from 1" ;; esac
case ${until:=deform} in
    global) stages=(global) ;;
    local) stages=(global local) ;;
    deform) stages=(global local deform) ;;
    *) complain "--until $until is none of global, local, deform" ;;
esac
case ${samplesheet:+sheet}${#locations[@]} in
    3) moving=${locations[1]} out=${locations[2]} ;;
    sheet2) moving= out=${locations[1]} ;;
    *) usage ;;
esac
case $out in *://*) complain "OUT is $out, and tables and reports need a local folder; name one, and give --data $out for volumes and transforms" ;; esac
fixed=${locations[0]} onto=$(absolute "$onto") data=$(absolute "${data:-$out}")
export PATH="${VOXLOOM_BIN:+$VOXLOOM_BIN:}$PATH"
command -v extract-spots > /dev/null || complain "extract-spots is not on PATH; set VOXLOOM_BIN to the folder of the programs"

# `rounds` lists the rounds, `carried` their further channels and points; the fields of an entry are
# separated by US (octal 37). A single pair is a round without a name.
us=$'\037' rounds=() carried=() rows=
if [ -z "$samplesheet" ]; then rounds=("$us$moving"); fi

csv() {
    case $1 in
        *[,\"]*) printf '"%s"' "${1//\"/\"\"}" ;;
        *) printf '%s' "$1" ;;
    esac
}

# Reads the samplesheet; locations in it are relative to the folder of the samplesheet.
read_samplesheet() {
    local folder checked row round moving channel image index kind points name faults=0 known=" "
    [ -r "$samplesheet" ] || complain "there is no samplesheet $samplesheet"
    folder=$(cd "$(dirname "$samplesheet")" && pwd)
    checked=$(awk -f "$here/samplesheet.awk" "$here/../conf/samplesheet.schema.json" "$samplesheet") || exit 2
    rows="round,moving,channel,image,index,kind,points"
    while IFS=$us read -r row round moving channel image index kind points; do
        for name in moving image points; do
            printf -v "$name" %s "$(absolute "${!name}" "$folder")"
            if there "${!name}"; then continue; fi
            echo "$(basename "$samplesheet") row $row: $name is ${!name}, which is not there" >&2
            faults=1
        done
        case $known in *" $round "*) ;; *) rounds+=("$round$us$moving") known+="$round " ;; esac
        if [ -n "$channel" ]; then carried+=("$round$us$channel$us$image$us$index$us$kind$us$points"); fi
        rows+=$'\n'$round,$(csv "$moving"),$channel,$(csv "$image"),$index,$kind,$(csv "$points")
    done <<< "$checked"
    [ $faults -eq 0 ] || exit 2
}
if [ -n "$samplesheet" ]; then read_samplesheet; fi

for volume in "$fixed" "$moving" "$onto"; do
    there "$volume" || complain "there is no $volume"
done
for metadata in zarr.json .zarray .zgroup attributes.json; do
    [ ! -e "$out/$metadata" ] || complain "$out is a volume; OUT is the folder of the results, give another name"
done

# The volumes and parameters of the run are saved with the results; other volumes need another OUT.
# Files in OUT that no run of this script has made must not be replaced.
config=$out/params.yaml
if [ ! -e "$out/receipts" ] && { [ ! -e "$config" ] || ! grep -q '^# fixed: ' "$config"; }; then
    for name in params.yaml report.html summary.tsv transforms points; do
        [ ! -e "$out/$name" ] || complain "$out/$name is there, and no run of align.sh has made it; name another OUT"
    done
fi
# The parameters come first, so that the line numbers in messages are those of the user's file.
wanted=$(
    if [ -n "$params" ]; then printf '%s\n' "$(cat -- "$params")"; else echo '{}'; fi
    printf '# fixed: %s\n# until: %s\n' "$fixed" "$until"
    if [ -n "$moving" ]; then printf '# moving: %s\n' "$moving"; fi
    if [ -n "$onto" ]; then printf '# onto: %s\n' "$onto"; fi
    if [ "$data" != "$out" ]; then printf '# data: %s\n' "$data"; fi
)
stale=
# A folder without a receipt holds no result yet.
has_begun() { compgen -G "$out/receipts/*.json" || compgen -G "$out/*/receipts/*.json"; }
if [ -e "$config" ] && has_begun > /dev/null; then
    stale=$(awk -f "$here/stale.awk" "$config" - <<< "$wanted")
    case $stale:$overwrite in
        :* | [!v]*:1) ;;
        volumes:*) complain "$out was begun with other volumes or another --data ($config); give those, or name another OUT" ;;
        *)
            complain "$out was begun with other parameters ($config); give those, name another OUT, or add --overwrite, \
which does the steps from $stale on again"
            ;;
    esac
    if [ -n "$rows" ]; then
        while read -r row; do
            case $'\n'$rows$'\n' in *$'\n'"$row"$'\n'*) ;; *)
                complain "$out was begun with the row $row ($out/samplesheet.csv); rows may be added, not changed; or name another OUT"
                ;;
            esac
        done < "$out/samplesheet.csv"
    fi
fi

# forget FOLDER NAME...: removes from the folder the outputs with these names (patterns), their
# ledgers and their receipts.
forget() {
    local folder=$1 name
    shift
    for name in "$@"; do
        # shellcheck disable=SC2086 # patterns
        rm -rf "${folder:?}"/$name "${folder:?}"/$name.voxloom "${folder:?}"/$name.receipt.json
    done
}

# forget_from STEP FOLDER: removes the outputs and receipts of this step and of all later steps.
forget_from() {
    local from= folder=$2 entry step names
    for entry in "pick-level working receipts/pick-level-*" \
        "extract-spots spots/fixed.csv spots/moving.csv receipts/extract-spots-*" \
        "ransac transforms/global.json spots/matches.csv receipts/ransac.*" \
        "local-affine transforms/local.zarr transforms/blocks.csv receipts/local-affine.*" \
        "deform transforms/deform.zarr transforms/deform.json receipts/deform.*" \
        "apply-transform global.zarr local.zarr aligned.zarr channels points receipts/apply-transform-* receipts/points-*" \
        "downsample receipts/downsample*" \
        "invmap transforms/inverse.zarr receipts/invmap.*" \
        "report report.html receipts/report.*"; do
        read -r step names <<< "$entry"
        if [ "$step" = "$1" ]; then from=1; fi
        # shellcheck disable=SC2086 # a list of patterns
        if [ -n "$from" ]; then set -f && set -- "$1" "$2" $names && set +f && forget "$folder" "${@:3}"; fi
    done
}
if [ -n "$stale" ]; then
    echo "align.sh: $out: the steps from $stale on are done again" >&2
    for round in '' "${rounds[@]}"; do
        folder=$out/${round%%"$us"*}
        forget_from "$stale" "$folder"
        case $data in
            "$out") ;;
            # outputs in a bucket cannot be removed here; instead, each step overwrites its output
            # once
            *://*) mkdir -p "$folder/receipts" && touch "$folder/receipts/replace" && rm -f "$folder"/receipts/*.begun ;;
            *) forget_from "$stale" "$data/${round%%"$us"*}" ;;
        esac
    done
fi
mkdir -p "$out"
keep "$wanted" "$config"
for round in "${rounds[@]}"; do
    mkdir -p "$out"/{working,spots,receipts} "$out/${round%%"$us"*}"/{working,spots,transforms,receipts}
done
if [ -n "$rows" ]; then keep "$rows" "$out/samplesheet.csv"; fi

# replaces NAME: succeeds if the step must still replace its output in a bucket, which was made with
# other parameters.
replaces() { [ -e "$folder/receipts/replace" ] && [ ! -e "$folder/receipts/$1.begun" ]; }

# begin NAME PROGRAM ARGUMENTS...: runs a step, which resumes unfinished work, or which overwrites
# an output in a bucket that was made with other parameters.
begin() {
    if replaces "$1"; then
        step "$@" --overwrite
        touch "$folder/receipts/$1.begun"
    else
        step "$@" --resume
    fi
}

# scatter NAME PROGRAM ARGUMENTS...: runs a step as a whole, or its parts one after the other and
# then --finish.
scatter() {
    local name=$1 k
    shift
    if [ "$parts" -eq 1 ] || replaces "$name"; then
        begin "$name" "$@"
    elif [ ! -e "$folder/receipts/$name.json" ]; then
        for ((k = 1; k <= parts; k++)); do
            step "$name.part-$k-$parts" "$@" --part "$k/$parts" --resume
        done
        step "$name" "$@" --finish --resume
    fi
}

# pick VOLUME NAME ARGUMENTS...: picks the resolution at which the volume is aligned; sets `picked`
# to the location of the volume at this resolution.
pick() {
    local volume=$1 name=$2
    shift 2
    begin "pick-level-$name" pick-level "$volume" --output "$folder/working/$name.txt" \
        --scratch "$store/working/$name.zarr" --parameters "$config" "$@"
    read -r picked < "$folder/working/$name.txt"
}

# align MOVING: runs the stages of one round. Each stage is fitted at the working resolution; the
# transform of the last stage is applied to the full-resolution volume.
align() {
    local moving=$1 near_moving from onto_fixed stage volume transform= initial receipts=() pictures=() tables=()
    local names=(pick-level-moving extract-spots-moving)
    pick "$moving" moving --like "$near"
    near_moving=$picked
    scatter extract-spots-moving extract-spots "$near_moving" --output "$folder/spots/moving.csv"
    for stage in "${stages[@]}"; do
        initial=$transform
        case $stage in
            global)
                transform=$store/transforms/global.json
                step ransac ransac "$near" "$near_moving" \
                    --fixed-spots "$out/spots/fixed.csv" --moving-spots "$folder/spots/moving.csv" \
                    --output "$transform" --matches "$folder/spots/matches.csv" --overwrite
                names+=(ransac)
                ;;
            local)
                transform=$store/transforms/local.zarr
                scatter local-affine local-affine "$near" "$near_moving" --initial "$initial" \
                    --output "$transform" --table "$folder/transforms/blocks.csv"
                names+=(local-affine)
                tables=(--blocks-table "$folder/transforms/blocks.csv")
                ;;
            deform)
                transform=$store/transforms/deform.json
                scatter deform deform "$near" "$near_moving" --initial "$initial" --output "$store/transforms/deform.zarr"
                names+=(deform)
                ;;
        esac
        case $stage in
            "$until") volume=$store/aligned.zarr from=$moving onto_fixed=$fixed ;;
            *) volume=$store/$stage.zarr from=$near_moving onto_fixed=$near ;;
        esac
        scatter "apply-transform-$stage" apply-transform "$from" --onto "$onto_fixed" --transform "$transform" --output "$volume"
        names+=("apply-transform-$stage")
        pictures+=(--stage "$stage=$volume")
    done
    step downsample downsample "$store/aligned.zarr" --resume
    scatter invmap invmap "$transform" --onto "$near_moving" --output "$store/transforms/inverse.zarr"

    receipts=("$out/receipts/pick-level-fixed.json" "$out/receipts/extract-spots-fixed.json")
    for name in "${names[@]}" downsample invmap; do
        receipts+=("$folder/receipts/$name.json")
    done
    step report report "${receipts[@]}" --fixed "$near" --moving "$near_moving" "${pictures[@]}" \
        --matches "$folder/spots/matches.csv" --fixed-spots "$out/spots/fixed.csv" "${tables[@]}" \
        --output "$folder/report.html" --overwrite
    carry "$transform"
}

# carry TRANSFORM: applies the transform to the channels that the samplesheet names for the round,
# and the inverse of the transform to the points.
carry() {
    local transform=$1 entry name channel image index kind points output choice
    for entry in "${carried[@]}"; do
        IFS=$us read -r name channel image index kind points <<< "$entry"
        if [ "$name" != "$round" ]; then continue; fi
        if [ -n "$image" ]; then
            output=$store/channels/$channel.zarr choice=() method=()
            if [ -n "$index" ]; then choice+=(--moving-channel "$index"); fi
            if [ "$kind" = labels ]; then choice+=(--interpolation nearest) method=(--method mode); fi
            scatter "apply-transform-channel-$channel" apply-transform "$image" --onto "${onto:-$fixed}" \
                --transform "$transform" --output "$output" "${choice[@]}"
            step "downsample-channel-$channel" downsample "$output" --resume "${method[@]}"
        fi
        if [ -n "$points" ]; then
            mkdir -p "$folder/points"
            step "points-$channel" apply-transform --points "$points" --inverse-transform \
                --transform "$transform" --output "$folder/points/$channel.csv" --overwrite
        fi
    done
}

# correlations RECEIPT: prints the correlations in the receipt of a report, one cell per stage.
correlations() {
    local stage
    for stage in before "${stages[@]}"; do
        awk -F': |,$' -v key="\"ncc_$stage\"" 'index($1, key) { printf "\t%s", $2; exit }' "$1"
    done
}

folder=$out store=$data label=
pick "$fixed" fixed
near=$picked
scatter extract-spots-fixed extract-spots "$near" --output "$out/spots/fixed.csv"

summary=round$(printf '\tncc_%s' before "${stages[@]}")$'\treport'
for entry in "${rounds[@]}"; do
    IFS=$us read -r round moving <<< "$entry"
    folder=$out${round:+/$round} store=$data${round:+/$round} label=$round
    align "$moving"
    summary+=$'\n'$round$(correlations "$folder/receipts/report.json")$'\t'$round/report.html
done
if [ -n "$rows" ]; then
    keep "$summary" "$out/summary.tsv"
    echo "$out/summary.tsv"
else
    echo "$out/report.html"
fi
