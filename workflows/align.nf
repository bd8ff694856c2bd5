#!/usr/bin/env nextflow
//
// Aligns a volume to another: spots, one affine, an affine per block, both applied, pyramid, report.
//
//   nextflow run workflows/align.nf --fixed A --moving B --outdir OUT -params-file params.yaml
//
// Every program writes to its place in OUT, and volumes travel as locations. What passes between
// processes is a receipt: a step begins when the receipts of the step before it are there.

include {
    EXTRACT_SPOTS as FIXED_SPOTS ;
    EXTRACT_SPOTS as FIXED_SPOTS_FINISH ;
    EXTRACT_SPOTS as MOVING_SPOTS ;
    EXTRACT_SPOTS as MOVING_SPOTS_FINISH
} from './modules/extract-spots'
include { LOCAL_AFFINE ; LOCAL_AFFINE as LOCAL_AFFINE_FINISH } from './modules/local-affine'
include {
    APPLY_TRANSFORM as APPLY_GLOBAL ;
    APPLY_TRANSFORM as APPLY_GLOBAL_FINISH ;
    APPLY_TRANSFORM as APPLY_LOCAL ;
    APPLY_TRANSFORM as APPLY_LOCAL_FINISH
} from './modules/apply-transform'
include { DOWNSAMPLE } from './modules/downsample'
include { PHANTOM } from './modules/phantom'
include { PLAN } from './modules/plan'
include { RANSAC } from './modules/ransac'
include { REPORT } from './modules/report'

workflow ALIGN {
    take:
    pair // [fixed, moving]: locations of the volumes
    ready // receipts of what makes the volumes, or none
    out // folder of the results
    config // the parameters file
    parts // how many parts a scattered step has

    main:
    def (fixed, moving) = pair
    def fixed_spots = "${out}/spots/fixed.csv"
    def moving_spots = "${out}/spots/moving.csv"
    def matches = "${out}/spots/matches.csv"
    def global = "${out}/transforms/global.json"
    def local = "${out}/transforms/local.zarr"
    def blocks = "${out}/transforms/blocks.csv"
    def global_volume = "${out}/global.zarr"
    def aligned = "${out}/aligned.zarr"
    shares = channel.fromList((1..parts).collect { k -> "part ${k}/${parts}" })

    PLAN(pair, ready, config)

    def of_fixed = ['extract-spots-fixed', fixed, fixed_spots]
    FIXED_SPOTS(of_fixed, shares, PLAN.out, config)
    FIXED_SPOTS_FINISH(of_fixed, 'finish', FIXED_SPOTS.out.collect(), config)

    def of_moving = ['extract-spots-moving', moving, moving_spots]
    MOVING_SPOTS(of_moving, shares, PLAN.out, config)
    MOVING_SPOTS_FINISH(of_moving, 'finish', MOVING_SPOTS.out.collect(), config)

    spots = FIXED_SPOTS_FINISH.out.mix(MOVING_SPOTS_FINISH.out).collect()
    RANSAC(pair, [fixed_spots, moving_spots], [global, matches], spots, config)

    LOCAL_AFFINE(pair, global, [local, blocks], shares, RANSAC.out, config)
    LOCAL_AFFINE_FINISH(pair, global, [local, blocks], 'finish', LOCAL_AFFINE.out.collect(), config)

    def by_global = ['apply-transform-global', moving, fixed, global, global_volume]
    APPLY_GLOBAL(by_global, shares, RANSAC.out, config)
    APPLY_GLOBAL_FINISH(by_global, 'finish', APPLY_GLOBAL.out.collect(), config)

    def by_local = ['apply-transform-local', moving, fixed, local, aligned]
    APPLY_LOCAL(by_local, shares, LOCAL_AFFINE_FINISH.out, config)
    APPLY_LOCAL_FINISH(by_local, 'finish', APPLY_LOCAL.out.collect(), config)

    DOWNSAMPLE(aligned, APPLY_LOCAL_FINISH.out, config)

    receipts = spots.mix(RANSAC.out, LOCAL_AFFINE_FINISH.out, APPLY_GLOBAL_FINISH.out, APPLY_LOCAL_FINISH.out, DOWNSAMPLE.out)
    REPORT(
        receipts.collect(sort: { receipt -> receipt.name }),
        pair,
        [global: global_volume, local: aligned],
        [matches, fixed_spots, blocks],
        "${out}/report.html",
        config
    )

    emit:
    REPORT.out
}

workflow {
    main:
    if (!params.phantom && !(params.fixed && params.moving)) {
        error("Which volumes? Give --fixed and --moving, or -profile test for a pair made on the spot.")
    }
    def out = absolute(params.outdir)
    def pair = params.phantom
        ? ["${out}/phantom/fixed.zarr", "${out}/phantom/moving.zarr"]
        : [absolute(params.fixed), absolute(params.moving)]
    def config = keep_parameters(pair, sections_of(params), out)

    ready = []
    if (params.phantom) {
        PHANTOM(params.phantom, "${out}/phantom")
        ready = PHANTOM.out
    }
    ALIGN(pair, ready, out, config, params.parts as int)

    workflow.onComplete = {
        log.info(workflow.success ? "${out}/report.html" : "failed; the same command with -resume goes on from there")
    }
}

// A location as the programs see it, wherever they run: URLs as they are, paths from the root.
def absolute(location) {
    return "${location}".contains('://') ? "${location}" : "${workflow.launchDir.resolve("${location}").normalize()}"
}

// The parameters of the programs, by program. What nobody knows is an error, not silence.
def sections_of(given) {
    def schema = new groovy.json.JsonSlurper().parseText(file("${projectDir}/../conf/params.schema.json").text)
    def programs = schema['$defs']
    def settings = ['fixed', 'moving', 'outdir', 'parts', 'phantom', 'queue', 'cluster_options', 'submit_rate', 'bind', 'container']
    // The engine turns names with a hyphen into camel case.
    def known = settings + programs.keySet() + programs.keySet().collect { name -> camel_case(name) }
    def unknown = given.keySet().findAll { name -> !known.contains(name) }
    def sections = programs.keySet()
        .collectEntries { name -> [(name): given[name] ?: given[camel_case(name)]] }
        .findAll { _name, section -> section }
    sections.each { name, section ->
        unknown += (section.keySet() - programs[name].properties.keySet()).collect { key -> "${name}: ${key}" }
    }
    if (unknown) {
        error("Unknown parameters: ${unknown.join(', ')}. conf/params.schema.json lists those of the programs.")
    }
    return sections
}

def camel_case(name) {
    def words = name.tokenize('-')
    return words.head() + words.tail().collect { word -> word.capitalize() }.join()
}

// Keeps with the results what they are made from: another pair or other parameters need another folder.
def keep_parameters(pair, sections, out) {
    def kept = file("${out}/params.yaml")
    def json = groovy.json.JsonOutput.prettyPrint(groovy.json.JsonOutput.toJson(sections))
    def wanted = "# fixed: ${pair[0]}\n# moving: ${pair[1]}\n${json}\n"
    if (!kept.exists()) {
        ['spots', 'transforms'].each { folder -> file("${out}/${folder}").mkdirs() }
        kept.text = wanted
    }
    else if (kept.text != wanted) {
        error("${out} was begun with other volumes or parameters (${kept.name}); give those, or another --outdir")
    }
    return kept
}
