// What the workflows share: jobs in parts, locations, and the parameters of the programs.

// Each job once for each of its parts.
def in_parts(jobs, parts) {
    return jobs.flatMap { job, done -> (1..parts).collect { k -> [job, [flag: "--part ${k}/${parts}".toString(), suffix: ".part-${k}-${parts}".toString()], done] } }
}

// Each job once more, to finish it, when all its parts are done.
def all_parts(results, parts) {
    return results.groupTuple(size: parts).map { job, receipts -> [job, [flag: '--finish', suffix: ''], by_name(receipts)] }
}

// The receipts sorted by name, so that their order is the same in every run.
def by_name(receipts) {
    return receipts.toList().sort { receipt -> receipt.name }
}

// A location that is valid in every working folder: URLs are unchanged, paths become absolute.
def absolute(location) {
    return "${location}".contains('://') ? "${location}".toString() : workflow.launchDir.resolve("${location}").normalize().toString()
}

// The parameters of the programs, by program. Unknown parameters are an error.
def sections_of(given, name) {
    def schema = schema_of(name)
    def programs = schema['$defs']
    // both workflows have all settings in their configuration
    def settings = ['params.schema.json', 'stack.schema.json'].collectMany { of -> schema_of(of).properties.keySet() - schema_of(of)['$defs'].keySet() }
    def ours = ['phantom', 'queue', 'cluster_options', 'submit_rate', 'bind', 'container']
    // The engine turns names with a hyphen into camel case.
    def known = (settings + ours + programs.keySet()).collectMany { one -> [one, camel_case(one)] }
    def unknown = given.keySet().findAll { one -> !known.contains(one) }
    def sections = programs.keySet()
        .collectEntries { program -> [(program): given.find { key, section -> section && key in [program, camel_case(program)] }?.value] }
        .findAll { _program, section -> section }
    sections.each { program, section ->
        unknown += (section.keySet() - programs[program].properties.keySet()).collect { key -> "${program}: ${key}" }
    }
    if (unknown) {
        error("Unknown parameters: ${unknown.join(', ')}. conf/${name} lists those of the programs.")
    }
    return sections
}

def schema_of(name) {
    return new groovy.json.JsonSlurper().parseText(file("${projectDir}/../conf/${name}").text)
}

def camel_case(name) {
    def words = name.tokenize('-')
    return words.head() + words.tail().collect { word -> word.capitalize() }.join()
}

// Saves the inputs and parameters of the run with the results; a run with others is refused and needs
// another folder, as are files that no run has made (`others`).
def keep_parameters(header, sections, out, others) {
    def kept = file("${out}/params.yaml")
    if (['zarr.json', '.zarray', '.zgroup', 'attributes.json'].any { metadata -> file("${out}/${metadata}").exists() }) {
        error("${out} is a volume; --outdir is the folder of the results, give another name")
    }
    def json = groovy.json.JsonOutput.prettyPrint(groovy.json.JsonOutput.toJson(sections))
    def lines = header.findAll { _name, value -> value }.collect { name, value -> "# ${name}: ${value}" }
    def wanted = (lines + [json]).join('\n') + '\n'
    def begun = file("${out}/receipts").exists() || (kept.exists() && kept.text.startsWith("# ${header.keySet().first()}: "))
    def other = begun ? null : others.find { name -> file("${out}/${name}").exists() }
    if (other) {
        error("${out}/${other} is there, and no run of this workflow has made it; give another --outdir")
    }
    if (!kept.exists()) {
        file("${out}/working").mkdirs()
        kept.text = wanted
    }
    else if (kept.text != wanted) {
        error("${out} was begun with other volumes or parameters (${kept.name}); give those, or another --outdir")
    }
    return kept
}
