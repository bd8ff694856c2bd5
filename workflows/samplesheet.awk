# Checks a samplesheet against its schema, and its rows against each other.
#
#   awk -f samplesheet.awk samplesheet.schema.json rounds.csv
#
# Prints one line per row: the number of the row and all columns of the schema in their order,
# separated by US (octal 37). If there are faults, prints one line for each fault to standard error
# instead, and exits with code 1. Rows are numbered as in a spreadsheet: the header is row 1.

BEGIN { separator = "\037"; quote = "\"" }

# Reads the schema, which must have one property per line.
FNR == NR {
    if (match($0, /^ *"[a-z]+": *\{"type"/)) {
        name = word($0)
        known[++columns] = name
        pattern[name] = keyword($0, "pattern")
        wanted[name] = keyword($0, "errorMessage")
    } else if (match($0, /^ *"[a-z]+": *\["/)) {
        value = $0
        sub(/^[^[]*\["/, "", value)
        sub(/".*/, "", value)
        if (word($0) == "required") { required = value } else { needs[word($0)] = value }
    }
    next
}

FNR == 1 {
    name = FILENAME
    sub(/.*\//, "", name)
    sheet = name
    sub(/^\357\273\277/, "")
}

{ sub(/\r$/, "") }

/^[ \t]*$/ { next }

FNR == 1 {
    width = cut($0)
    for (c = 1; c <= width; c++) {
        if (!is_known(cell[c])) { fault("column " cell[c] " is unknown; known are " listed()) }
        if (cell[c] in place) { fault("column " cell[c] " is there twice") }
        place[cell[c]] = c
    }
    if (!(required in place)) { fault("column " required " is missing") }
    if (faults) { exit }
    next
}

{
    rows++
    before = faults
    check()
    if (faults == before) {
        line = FNR
        for (c = 1; c <= columns; c++) { line = line separator value_of(known[c]) }
        checked[rows] = line
    }
}

END {
    if (!faults && !rows) { FNR = 1; fault("no row follows the header") }
    if (faults) { exit 1 }
    for (r = 1; r <= rows; r++) { print checked[r] }
}

function check(    c, count, name, text, round, channel) {
    count = cut($0)
    if (count < 0) { fault("a quote is not closed"); return }
    if (count != width) { fault("has " count " cells, and the header " width); return }
    for (c = 1; c <= columns; c++) {
        name = known[c]
        text = value_of(name)
        if (text == "" && name == required) { fault(name " is empty") }
        if (text == "") { continue }
        if (pattern[name] != "" && text !~ pattern[name]) { fault(name " is " quote text quote ", wanted " wanted[name]) }
        if (name in needs && value_of(needs[name]) == "") { fault(needs[name] " is empty, but " name " needs it") }
    }
    round = value_of("round")
    channel = value_of("channel")
    text = value_of("moving")
    if (round == "") { return }
    if (channel != "" && value_of("image") == "" && value_of("points") == "") {
        fault("channel " channel " has neither image nor points")
    }
    if (!(round in first)) {
        first[round] = FNR
        moving[round] = text
        if (text == "") { fault("moving is empty in the first row of round " round) }
    } else if (text != "" && text != moving[round]) {
        fault("moving is " text ", but " moving[round] " in row " first[round] " for round " round)
    }
    if ((round, channel) in seen) {
        fault("round " round (channel == "" ? "" : " with channel " channel) " is there already, in row " seen[round, channel])
    } else {
        seen[round, channel] = FNR
    }
}

function fault(message) {
    faults++
    print sheet " row " FNR ": " message | "cat 1>&2"
}

function value_of(name) { return name in place ? cell[place[name]] : "" }

function is_known(name,    c) {
    for (c = 1; c <= columns; c++) { if (known[c] == name) { return 1 } }
    return 0
}

function listed(    c, text) {
    for (c = 1; c <= columns; c++) { text = text (c > 1 ? ", " : "") known[c] }
    return text
}

# `word` returns the first string in a line of the schema, `keyword` the string after a keyword.
function word(line) {
    sub(/^[^"]*"/, "", line)
    sub(/".*/, "", line)
    return line
}

function keyword(line, name) {
    if (!index(line, "\"" name "\": \"")) { return "" }
    return word(substr(line, index(line, "\"" name "\": ") + length(name) + 3))
}

# Splits a line of CSV into `cell`; returns the number of cells, or -1 if a quote is not closed.
function cut(line,    count, at, end, text) {
    at = 1
    while (1) {
        while (substr(line, at, 1) ~ /[ \t]/) { at++ }
        text = ""
        if (substr(line, at, 1) == quote) {
            while (1) {
                end = index(substr(line, at + 1), quote)
                if (!end) { return -1 }
                text = text substr(line, at + 1, end - 1)
                at += end + 1
                if (substr(line, at, 1) != quote) { break }
                text = text quote
            }
            while (substr(line, at, 1) ~ /[ \t]/) { at++ }
            if (at <= length(line) && substr(line, at, 1) != ",") { return -1 }
        } else {
            end = index(substr(line, at), ",")
            text = end ? substr(line, at, end - 1) : substr(line, at)
            at += length(text)
            sub(/[ \t]+$/, "", text)
        }
        cell[++count] = text
        if (at > length(line)) { return count }
        at++
    }
}
