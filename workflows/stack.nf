#!/usr/bin/env nextflow
//
// Aligns the sections of a stack to each other: roughly, then in passes from coarse to fine, each of
// which compares each section with those before it and aligns all of them together.
//
//   nextflow run workflows/stack.nf --stack A --outdir OUT -params-file params.yaml
//
// The steps and their outputs are those of workflows/stack.sh. Every program writes its output directly
// into OUT; processes exchange jobs, which are maps that describe a step, and receipts.

include { RUN as REDUCE ; RUN as MASK ; RUN as MASK_FINISH ; RUN as ROUGH ; RUN as ROUGH_FINISH ; RUN as APPLY_TRANSFORM ; RUN as APPLY_TRANSFORM_FINISH } from './modules/run'
include { RUN as DOWNSAMPLE ; RUN as REPORT } from './modules/run'
include { PASS as PASS_1 ; PASS as PASS_2 ; PASS as PASS_3 ; PASS as PASS_4 } from './modules/pass'
include { PASS as PASS_5 ; PASS as PASS_6 ; PASS as PASS_7 ; PASS as PASS_8 } from './modules/pass'
include { masks ; seen ; whole } from './modules/pass'
include { absolute ; all_parts ; by_name ; in_parts ; keep_parameters ; sections_of } from './modules/parameters'

// Lists the passes: number, reduction, patch, search and distance of each, one per line.
process PASSES {
    label 'small'

    input:
    val settings
    path script

    output:
    path 'passes.txt'

    script:
    def spacing = settings.spacing ? "--spacing '${settings.spacing}'" : ''
    """
    inspect --json --quiet '${settings.stack}' ${spacing} |
        awk -v stack='${settings.stack}' -v distance='${settings.distance}' -v passes='${settings.given}' -f '${script}' > passes.txt
    """

    stub:
    """
    printf '1 2 40 20 2\\n2 1 48 8 2\\n' > passes.txt
    """
}

// The table of the pairs of sections in the last pass.
process SUMMARY {
    label 'small'
    publishDir { settings.out }, mode: 'copy'

    input:
    tuple val(settings), path(receipt)
    path script

    output:
    path 'summary.tsv'

    script:
    """
    awk -f '${script}' '${receipt}' > summary.tsv
    """

    stub:
    """
    touch summary.tsv
    """
}

workflow STACK {
    take:
    settings // [stack, out, receipts, spacing, given, distance, mask, rough, parts]
    config // the parameters file

    main:
    def parts = settings.parts
    PASSES(settings, file("${projectDir}/passes.awk"))
    setup = PASSES.out.map { list -> settings + [passes: passes_of(list)] }
    reductions = setup.flatMap { all -> all.passes.collect { pass -> pass.reduction }.unique().findAll { reduction -> reduction != '1' }.collect { reduction -> reduce_job(all, reduction) } }
    REDUCE(reductions.map { job -> [job, whole(), []] }, config)
    reduced = REDUCE.out.map { _job, receipt -> receipt }.toList().map { receipts -> [by_name(receipts)] }
    MASK(in_parts(setup.filter { all -> all.mask }.map { all -> [mask_job(all), []] }, parts), config)
    MASK_FINISH(all_parts(MASK.out, parts), config)
    masked = setup
        .filter { all -> !all.mask }
        .map { _all -> [[]] }
        .mix(MASK_FINISH.out.map { _job, receipt -> [[receipt]] })
    begun = setup.combine(reduced).combine(masked)
    ROUGH(in_parts(begun.filter { all, _done, _mask -> all.rough }.map { all, done, mask -> [rough_job(all), done + mask] }, parts), config)
    ROUGH_FINISH(all_parts(ROUGH.out, parts), config)
    start = begun
        .filter { all, _done, _mask -> !all.rough }
        .map { all, _done, mask -> [all, 1, mask] }
        .mix(setup.combine(masked).combine(ROUGH_FINISH.out).map { all, mask, _job, receipt -> [all, 1, mask + [receipt]] })

    PASS_1(start, parts, config)
    PASS_2(PASS_1.out, parts, config)
    PASS_3(PASS_2.out, parts, config)
    PASS_4(PASS_3.out, parts, config)
    PASS_5(PASS_4.out, parts, config)
    PASS_6(PASS_5.out, parts, config)
    PASS_7(PASS_6.out, parts, config)
    PASS_8(PASS_7.out, parts, config)
    last = PASS_1.out
        .mix(PASS_2.out, PASS_3.out, PASS_4.out, PASS_5.out, PASS_6.out, PASS_7.out, PASS_8.out)
        .filter { all, number, _done -> number > all.passes.size() }

    APPLY_TRANSFORM(in_parts(last.map { all, _number, done -> [apply_job(all), done] }, parts), config)
    APPLY_TRANSFORM_FINISH(all_parts(APPLY_TRANSFORM.out, parts), config)
    DOWNSAMPLE(setup.combine(APPLY_TRANSFORM_FINISH.out).map { all, _job, receipt -> [pyramid_job(all), whole(), receipt] }, config)
    made = last.combine(APPLY_TRANSFORM_FINISH.out).combine(DOWNSAMPLE.out).map { all, _number, done, _apply, applied, _job, receipt -> [all, done + [applied, receipt]] }
    REPORT(made.map { all, receipts -> [report_job(all), whole(), receipts] }, config)
    SUMMARY(last.map { all, _number, done -> [all, done.last()] }, file("${projectDir}/pairs.awk"))

    emit:
    REPORT.out
}

workflow {
    main:
    if (!params.stack) {
        error("Which stack? Give --stack A --outdir OUT.")
    }
    def out = absolute(params.outdir)
    def settings = [
        stack: absolute(params.stack),
        out: out,
        receipts: "${out}/receipts".toString(),
        spacing: "${params.spacing ?: ''}".toString(),
        given: "${params.passes ?: ''}".toString(),
        distance: params.distance as int,
        mask: !params.noMask,
        rough: !params.noRough,
        parts: params.parts as int,
    ]
    def header = [stack: settings.stack, spacing: settings.spacing, passes: settings.given, distance: settings.distance, mask: settings.mask, rough: settings.rough]
    def config = keep_parameters(header, sections_of(params, 'stack.schema.json'), out, ['params.yaml', 'report.html', 'summary.tsv', 'aligned.zarr', 'mask.zarr', 'rough.zarr'])
    STACK(settings, config)

    workflow.onComplete = {
        log.info(workflow.success ? "${out}/report.html" : "failed; to continue, repeat the command with -resume")
    }
}

def passes_of(list) {
    def passes = list.readLines().collect { line -> [['number', 'reduction', 'patch', 'search', 'distance'], line.tokenize(' ')].transpose().collectEntries() }
    if (passes.size() > 8) {
        error("--passes has ${passes.size()} passes; this workflow does at most 8")
    }
    return passes
}

// The job that reduces the sections for a pass.
def reduce_job(setup, reduction) {
    def stack = seen(setup, '1', ['--spacing'])
    def to = seen(setup, reduction, [])
    return [
        step: "downsample-${reduction}".toString(),
        receipts: setup.receipts,
        line: "downsample '${stack.location}' ${stack.spacing} --output '${to.location}' --factor 1,${reduction},${reduction} --levels 1".toString(),
    ]
}

def mask_job(setup) {
    def stack = seen(setup, '1', ['--spacing'])
    return [
        step: 'mask',
        receipts: setup.receipts,
        line: "mask '${stack.location}' ${stack.spacing} --output '${setup.out}/mask.zarr'".toString(),
    ]
}

def rough_job(setup) {
    def pass = setup.passes[0]
    def stack = seen(setup, pass.reduction, ['--spacing'])
    return [
        step: 'rough',
        receipts: setup.receipts,
        line: "rough '${stack.location}' ${stack.spacing} ${masks(setup, ['--mask'])} --distance ${pass.distance} --output '${setup.out}/rough.zarr'".toString(),
    ]
}

def apply_job(setup) {
    def stack = seen(setup, '1', ['--fixed-spacing', '--moving-spacing'])
    def chain = "${setup.out}/aligned.json"
    return [
        step: 'apply-transform',
        receipts: setup.receipts,
        before: "cp '${setup.out}/pass${setup.passes.size()}.json' '${chain}'.\$\$ && mv '${chain}'.\$\$ '${chain}'".toString(),
        line: "apply-transform '${stack.location}' --onto '${stack.location}' ${stack.spacing} --transform '${chain}' --output '${setup.out}/aligned.zarr'".toString(),
    ]
}

def pyramid_job(setup) {
    return [step: 'downsample', receipts: setup.receipts, line: "downsample '${setup.out}/aligned.zarr'".toString()]
}

def report_job(setup) {
    def stack = seen(setup, '1', ['--fixed-spacing'])
    def passes = setup.passes.collectMany { pass -> (1..(pass.distance as int)).collect { d -> "flow-${pass.number}-${d}" } + ["relax-${pass.number}"] }
    def names = (setup.mask ? ['mask'] : []) + (setup.rough ? ['rough'] : []) + passes + ['apply-transform', 'downsample']
    return [
        step: 'report',
        receipts: setup.receipts,
        again: '--overwrite',
        line: ("report ${names.collect { name -> "done/${name}.json" }.join(' ')} --stack '${stack.location}' ${stack.spacing} " +
            "--aligned '${setup.out}/aligned.zarr' --transform '${setup.out}/aligned.json' --output '${setup.out}/report.html'").toString(),
    ]
}
