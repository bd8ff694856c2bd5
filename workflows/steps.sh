# Functions of the shell workflows, which source this file. `me` is the name of the workflow, `out` the
# folder of its results; a step reads `folder` (where its receipt is written), `config` (the parameters
# file) and `label` (of the round, or empty).

complain() {
    printf '%s: %s\n' "$me" "$1" >&2
    exit 2
}

# absolute LOCATION [FOLDER]: prints the location. A relative path is made absolute, relative to
# FOLDER; URLs are unchanged.
absolute() {
    case $1 in
        '' | /* | *://*) printf '%s' "$1" ;;
        *) printf '%s' "${2:-$PWD}/$1" ;;
    esac
}

# there LOCATION: succeeds if the location exists; URLs and patterns are assumed to exist.
there() {
    case $1 in
        '' | *://* | *[*?[{]*) return 0 ;;
        *) [ -e "$1" ] ;;
    esac
}

# keep TEXT FILE: writes the text to the file, atomically, unless the file has this text already.
keep() {
    if [ -e "$2" ] && [ "$1" = "$(cat "$2")" ]; then return; fi
    { printf '%s\n' "$1" > "$2.$$" && mv "$2.$$" "$2"; } 2> /dev/null \
        || complain "$2 cannot be written; does another run use $out? Wait for its end, and look at the disk's free space"
}

# attempt NAME PROGRAM ARGUMENTS...: runs the program unless the step has a receipt, and returns its exit
# code. After a transient fault (exit code 75), the program is repeated up to two times.
attempt() {
    local name=$1 receipt=$folder/receipts/$1.json code=0
    shift
    if [ -e "$receipt" ]; then return 0; fi
    echo "$me: ${label:+$label: }$name" >&2
    for pause in 5 30 0; do
        code=0
        "$@" --config "$config" --receipt "$receipt" || code=$?
        if [ $code -ne 75 ]; then break; fi
        sleep "$pause"
    done
    # renamed, because a rejected result also has a receipt, but its step is not done
    if [ $code -ne 0 ] && [ -e "$receipt" ]; then mv "$receipt" "${receipt%.json}.failed.json"; fi
    return $code
}

# step NAME PROGRAM ARGUMENTS...: attempts the step, and ends the workflow if it fails.
step() {
    local code=0
    attempt "$@" || code=$?
    case $code in
        0) return ;;
        2) echo "$me: ${label:+$label: }$1 has wrong parameters; correct them, and give --overwrite too" >&2 ;;
        3) echo "$me: ${label:+$label: }$1 has no result that could be believed; change what its message names, and give --overwrite too" >&2 ;;
        *) echo "$me: ${label:+$label: }$1 ended with exit code $code; the same command line goes on from there" >&2 ;;
    esac
    exit $code
}
