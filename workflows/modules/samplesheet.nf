// Reads the samplesheet, and checks its rows against the schema, against each other, and against
// those of an earlier run.
// Rows are numbered as a spreadsheet does it: the header is row 1.

// [columns: names, rows: a map per row, with the number of the row in it]; an empty cell is an empty string.
def read_samplesheet(sheet) {
    def schema = new groovy.json.JsonSlurper().parseText(file("${projectDir}/../conf/samplesheet.schema.json").text).items
    if (!sheet.exists()) {
        error("there is no samplesheet ${sheet}")
    }
    def lines = sheet.readLines().withIndex(1).findAll { line, _row -> line.trim() }
    def header = lines ? cells_of(lines[0][0].replaceFirst('^\uFEFF', '')) : []
    def columns = schema.properties.keySet().toList()
    def faults = header.findAll { name -> !columns.contains(name) }
        .collect { name -> [1, "column ${name} is unknown; known are ${columns.join(', ')}"] }
    faults += header.countBy { name -> name }.findAll { _name, count -> count > 1 }
        .collect { name, _count -> [1, "column ${name} is there twice"] }
    faults += schema.required.findAll { name -> !header.contains(name) }.collect { name -> [1, "column ${name} is missing"] }
    if (!faults && lines.size() == 1) {
        faults << [1, 'no row follows the header']
    }
    def rows = []
    if (!faults) {
        rows = lines.tail().collect { line, row -> row_of(line, row, header, columns) }
        faults = rows.collectMany { row -> faults_of_row(row, schema) } + faults_between(rows.findAll { row -> !row.fault })
        rows = rows.collect { row -> row + locations_of(row, sheet) }
    }
    if (!faults) {
        faults = rows.collectMany { row -> lost_files(row) }
    }
    if (faults) {
        error(faults.sort { fault -> fault[0] }.collect { row, what -> "${sheet.name} row ${row}: ${what}" }.join('\n'))
    }
    return [columns: columns, rows: rows]
}

// The cells of a line of CSV, or null where a quote is not closed.
def cells_of(line) {
    def cells = []
    def taken = 0
    (',' + line).eachMatch(/,[ \t]*(?:"((?:[^"]|"")*)"|([^",][^,]*?)?)[ \t]*(?=,|$)/) { found ->
        taken += found[0].length()
        cells << (found[1] != null ? found[1].replace('""', '"') : found[2] ?: '')
    }
    return taken == line.length() + 1 ? cells : null
}

def row_of(line, number, header, columns) {
    def cells = cells_of(line)
    if (cells == null) {
        return [row: number, fault: 'a quote is not closed']
    }
    if (cells.size() != header.size()) {
        return [row: number, fault: "has ${cells.size()} cells, and the header ${header.size()}"]
    }
    def given = [header, cells].transpose().collectEntries()
    return [row: number] + columns.collectEntries { name -> [(name): given[name] ?: ''] }
}

// The violations of the schema in a row.
def faults_of_row(row, schema) {
    if (row.fault) {
        return [[row.row, row.fault]]
    }
    def faults = schema.required.findAll { name -> !row[name] }.collect { name -> "${name} is empty".toString() }
    schema.properties.findAll { name, _rule -> row[name] }.each { name, rule ->
        if (rule.pattern && !(row[name] ==~ rule.pattern)) {
            faults << "${name} is \"${row[name]}\", wanted ${rule.errorMessage}".toString()
        }
        (schema.dependentRequired[name] ?: []).findAll { needed -> !row[needed] }.each { needed ->
            faults << "${needed} is empty, but ${name} needs it".toString()
        }
    }
    if (row.round && row.channel && !row.image && !row.points) {
        faults << "channel ${row.channel} has neither image nor points".toString()
    }
    return faults.collect { what -> [row.row, what] }
}

// The contradictions between rows of the same round.
def faults_between(rows) {
    def faults = []
    rows.findAll { row -> row.round }.groupBy { row -> row.round }.each { round, of_round ->
        def first = of_round[0]
        if (!first.moving) {
            faults << [first.row, "moving is empty in the first row of round ${round}"]
        }
        of_round.findAll { row -> row.moving && row.moving != first.moving && first.moving }.each { row ->
            faults << [row.row, "moving is ${row.moving}, but ${first.moving} in row ${first.row} for round ${round}"]
        }
        of_round.groupBy { row -> row.channel }.each { channel, same ->
            def what = channel ? "round ${round} with channel ${channel}" : "round ${round}"
            same.tail().each { row -> faults << [row.row, "${what} is there already, in row ${same[0].row}"] }
        }
    }
    return faults
}

// The locations of a row; relative ones are relative to the folder of the sheet.
def locations_of(row, sheet) {
    def folder = sheet.toAbsolutePath().parent.toUriString().replaceFirst('^file://', '')
    return ['moving', 'image', 'points'].findAll { name -> row[name] }.collectEntries { name ->
        def given = row[name]
        [(name): given.startsWith('/') || given.contains('://') ? given : "${folder}/${given}".toString()]
    }
}

// The files of a row that do not exist; URLs and patterns are not checked.
def lost_files(row) {
    return ['moving', 'image', 'points']
        .findAll { name -> row[name] && !(row[name] =~ '://|[*?\\[{]') && !file(row[name]).exists() }
        .collect { name -> [row.row, "${name} is ${row[name]}, which is not there"] }
}

// Stores a copy of the samplesheet in the output folder, beside the results. If an earlier run has
// left one there, rows may be added to it, but its rows must be unchanged.
def keep_samplesheet(sheet, out) {
    def kept = file("${out}/samplesheet.csv")
    def lines = [sheet.columns.join(',')] + sheet.rows.collect { row ->
        sheet.columns.collect { name -> row[name] =~ '[,"]' ? '"' + row[name].replace('"', '""') + '"' : row[name] }.join(',')
    }
    if (kept.exists()) {
        def changed = kept.readLines().find { line -> !lines.contains(line) }
        if (changed) {
            error("${out} was begun with the row ${changed} (${kept.name}); rows may be added, not changed; or give another --outdir")
        }
    }
    kept.parent.mkdirs()
    kept.text = lines.join('\n') + '\n'
}
