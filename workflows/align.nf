#!/usr/bin/env nextflow
//
// Aligns volumes to another, a pair or all rounds of a samplesheet: the working resolution, spots, one affine, an affine per block,
// a displacement field, each applied, the inverse, further channels and points, pyramids, reports.
//
//   nextflow run workflows/align.nf --fixed A --moving B --outdir OUT -params-file params.yaml
//   nextflow run workflows/align.nf --fixed A --samplesheet ROUNDS.csv --outdir OUT -params-file params.yaml
//
// Every program writes its output directly into OUT, and volumes are passed as locations. Processes
// exchange jobs, which are maps that describe a step, and receipts: a job starts when the receipts
// of the steps that it depends on exist.

include { EXTRACT_SPOTS ; EXTRACT_SPOTS as EXTRACT_SPOTS_FINISH } from './modules/extract-spots'
include { LOCAL_AFFINE ; LOCAL_AFFINE as LOCAL_AFFINE_FINISH } from './modules/local-affine'
include { DEFORM ; DEFORM as DEFORM_FINISH } from './modules/deform'
include { INVMAP ; INVMAP as INVMAP_FINISH } from './modules/invmap'
include { APPLY_TRANSFORM ; APPLY_TRANSFORM as APPLY_TRANSFORM_FINISH } from './modules/apply-transform'
include { CARRY_POINTS } from './modules/carry-points'
include { PICK_LEVEL as PICK_FIXED ; PICK_LEVEL as PICK_MOVING } from './modules/pick-level'
include { DOWNSAMPLE } from './modules/downsample'
include { PHANTOM } from './modules/phantom'
include { PLAN } from './modules/plan'
include { RANSAC } from './modules/ransac'
include { REPORT } from './modules/report'
include { read_samplesheet ; keep_samplesheet } from './modules/samplesheet'
include { absolute ; all_parts ; by_name ; in_parts ; keep_parameters ; sections_of } from './modules/parameters'

workflow ALIGN {
    take:
    fixed // location of the fixed volume
    rounds // a list of rounds, as from a_round
    carried // rows of the samplesheet with further channels and points of the rounds
    ready // the receipt of the phantom if that makes the volumes, else an empty list
    settings // [out, onto, stages, parts]
    config // the parameters file

    main:
    def parts = settings.parts
    def last = settings.stages.last()
    def fixed_spots = "${settings.out}/spots/fixed.csv".toString()

    def all = a_round('', '', settings.out)
    // Volumes are aligned at their working resolution: `near` is the fixed volume at this
    // resolution, `working` the moving volume of a round.
    PICK_FIXED(channel.of(pick(all, 'fixed', fixed)), ready, config)
    near = PICK_FIXED.out.map { _job, picked, _receipt -> picked.text.trim() }.first()
    near_done = PICK_FIXED.out.map { _job, _picked, receipt -> receipt }.first()
    PICK_MOVING(channel.fromList(rounds).combine(near).map { round, like -> pick(round, 'moving', round.moving) + [like: like] }, ready, config)
    picked = PICK_MOVING.out.combine(near).map { job, place, receipt, close ->
        [job.round + [working: place.text.trim(), near: close], receipt]
    }
    of_fixed = near.map { volume -> [round: all, step: 'extract-spots-fixed', volume: volume, spots: fixed_spots] }
    of_moving = picked.map { round, _receipt ->
        [round: round, step: 'extract-spots-moving', volume: round.working, spots: "${round.folder}/spots/moving.csv".toString()]
    }
    PLAN(of_fixed.mix(of_moving), ready, config)
    EXTRACT_SPOTS(in_parts(PLAN.out, parts), config)
    EXTRACT_SPOTS_FINISH(all_parts(EXTRACT_SPOTS.out, parts), config)
    spots = EXTRACT_SPOTS_FINISH.out.branch { job, _receipt ->
        fixed: job.step == 'extract-spots-fixed'
        moving: true
    }
    fixed_done = spots.fixed.map { _job, receipt -> receipt }.first()

    // The stages: a job fits a transform, which is the initial transform of the next stage.
    ransac = spots.moving.combine(fixed_done).map { job, moving_done, done ->
        [fit(job.round, 'global') + [fixed_spots: fixed_spots], [done, moving_done]]
    }
    RANSAC(ransac, config)
    local_affine = RANSAC.out
        .filter { 'local' in settings.stages }
        .map { job, receipt -> [fit(job.round, 'local') + [initial: job.transform], receipt] }
    LOCAL_AFFINE(in_parts(local_affine, parts), config)
    LOCAL_AFFINE_FINISH(all_parts(LOCAL_AFFINE.out, parts), config)
    deform = LOCAL_AFFINE_FINISH.out
        .filter { 'deform' in settings.stages }
        .map { job, receipt -> [fit(job.round, 'deform') + [initial: job.transform], receipt] }
    DEFORM(in_parts(deform, parts), config)
    DEFORM_FINISH(all_parts(DEFORM.out, parts), config)
    fitted = RANSAC.out.mix(LOCAL_AFFINE_FINISH.out, DEFORM_FINISH.out)
    final_fits = fitted.filter { job, _receipt -> job.stage == last }

    // The transform of each stage is applied to the moving volume (that of the last stage at full
    // resolution), and that of the last stage to the further channels of the round, too.
    applied = fitted.map { job, receipt ->
        def whole = job.stage == last
        def what = apply(job, whole ? job.round.moving : job.round.working, whole ? fixed : job.round.near)
        [what + [output: picture(job.round, job.stage, last)], receipt]
    }
    channels = final_fits.flatMap { job, receipt ->
        carried.findAll { row -> row.round == job.round.name && row.image }.collect { row ->
            def named = [step: "apply-transform-channel-${row.channel}".toString(), channel: row.channel, kind: row.kind, index: row.index]
            [apply(job, row.image, settings.onto) + named + [output: "${job.round.folder}/channels/${row.channel}.zarr".toString()], receipt]
        }
    }
    APPLY_TRANSFORM(in_parts(applied.mix(channels), parts), config)
    APPLY_TRANSFORM_FINISH(all_parts(APPLY_TRANSFORM.out, parts), config)
    pyramids = APPLY_TRANSFORM_FINISH.out
        .filter { job, _receipt -> job.channel || job.stage == last }
        .map { job, receipt ->
            def step = job.channel ? "downsample-channel-${job.channel}".toString() : 'downsample'
            [[round: job.round, step: step, volume: job.output, kind: job.kind, channel: job.channel], receipt]
        }
    DOWNSAMPLE(pyramids, config)

    points = final_fits.flatMap { job, receipt ->
        carried.findAll { row -> row.round == job.round.name && row.points }.collect { row ->
            def output = "${job.round.folder}/points/${row.channel}.csv".toString()
            [[round: job.round, step: "points-${row.channel}".toString(), points: row.points, transform: job.transform, output: output], receipt]
        }
    }
    CARRY_POINTS(points, config)

    inverse = final_fits.map { job, receipt ->
        [[round: job.round, step: 'invmap', moving: job.round.working, transform: job.transform, inverse: "${job.round.folder}/transforms/inverse.zarr".toString()], receipt]
    }
    INVMAP(in_parts(inverse, parts), config)
    INVMAP_FINISH(all_parts(INVMAP.out, parts), config)

    // A round's report waits for its level and spots, and for a fit and a volume per stage, the pyramid and the inverse.
    receipts = spots.moving
        .mix(picked.map { round, receipt -> [[round: round], receipt] }, fitted, APPLY_TRANSFORM_FINISH.out, DOWNSAMPLE.out, INVMAP_FINISH.out)
        .filter { job, _receipt -> !job.channel }
        .map { job, receipt -> [job.round, receipt] }
        .groupTuple(size: 2 * settings.stages.size() + 4)
        .combine(fixed_done)
        .combine(near_done)
        .map { round, of_round, of_all, of_fixed_level ->
            [page(round, settings.stages) + [fixed_spots: fixed_spots], by_name(of_round + [of_all, of_fixed_level])]
        }
    REPORT(receipts, config)

    emit:
    REPORT.out
}

workflow {
    main:
    if (!params.phantom && !(params.fixed && (params.moving || params.samplesheet))) {
        error("Which volumes? Give --fixed and --moving or --samplesheet, or -profile test for a pair made on the spot.")
    }
    if (params.moving && params.samplesheet) {
        error("Give --moving or --samplesheet, not both.")
    }
    def stages = ['global', 'local', 'deform']
    if (!stages.contains(params.until)) {
        error("--until ${params.until} is none of ${stages.join(', ')}")
    }
    stages = stages.take(stages.indexOf(params.until) + 1)
    def out = absolute(params.outdir)
    def fixed = params.phantom ? "${out}/phantom/fixed.zarr".toString() : absolute(params.fixed)
    def sheet = params.samplesheet ? read_samplesheet(file(params.samplesheet)) : null
    def moving = params.phantom ? "${out}/phantom/moving.zarr".toString() : params.moving ? absolute(params.moving) : ''
    def rounds = sheet ? sheet.rows.groupBy { row -> row.round }.collect { name, of_round -> a_round(name, of_round[0].moving, out) } : [a_round('', moving, out)]
    def carried = sheet ? sheet.rows.findAll { row -> row.channel } : []
    def header = [fixed: fixed, until: params.until, moving: moving, onto: params.onto ? absolute(params.onto) : '']
    def config = keep_parameters(header, sections_of(params, 'params.schema.json'), out, ['params.yaml', 'report.html', 'summary.tsv', 'transforms', 'points'])
    if (sheet) {
        keep_samplesheet(sheet, out)
    }
    file("${out}/spots").mkdirs()
    rounds.each { round -> ['working', 'spots', 'transforms'].each { folder -> file("${round.folder}/${folder}").mkdirs() } }

    ready = []
    if (params.phantom) {
        PHANTOM([round: a_round('', '', out), size: params.phantom, folder: "${out}/phantom".toString()])
        ready = PHANTOM.out
    }
    ALIGN(fixed, rounds, carried, ready, [out: out, onto: header.onto ?: fixed, stages: stages, parts: params.parts as int], config)

    // One line per round: the correlations, as the reports have them.
    if (sheet) {
        def columns = ['before'] + stages
        ALIGN.out.collect(flat: false).map { reports ->
            def lines = reports.collectEntries { job, receipt ->
                def cells = columns.collect { stage -> receipt.text.find("\"ncc_${stage}\": ([^,\\s]+)") { _all, value -> value } ?: '' }
                [(job.round.name): ([job.round.name] + cells + ["${job.round.name}/report.html"]).join('\t')]
            }
            def head = (['round'] + columns.collect { stage -> "ncc_${stage}" } + ['report']).join('\t')
            file("${out}/summary.tsv").text = ([head] + rounds.collect { round -> lines[round.name] }).join('\n') + '\n'
        }
    }

    workflow.onComplete = {
        log.info(workflow.success ? "${out}/${sheet ? 'summary.tsv' : 'report.html'}" : "failed; to continue, repeat the command with -resume")
    }
}

// The job that picks the resolution at which a volume is aligned.
def pick(round, name, volume) {
    def place = "${round.folder}/working/${name}".toString()
    return [round: round, step: "pick-level-${name}".toString(), volume: volume, picked: "${place}.txt".toString(), scratch: "${place}.zarr".toString()]
}

// The job that fits the transform of a stage, at the working resolution.
def fit(round, stage) {
    def folder = "${round.folder}/transforms".toString()
    def spots = "${round.folder}/spots".toString()
    def common = [round: round, stage: stage, fixed: round.near, moving: round.working]
    def particular = [
        global: [transform: "${folder}/global.json", moving_spots: "${spots}/moving.csv", matches: "${spots}/matches.csv"],
        local: [transform: "${folder}/local.zarr", table: "${folder}/blocks.csv"],
        deform: [transform: "${folder}/deform.json", field: "${folder}/deform.zarr"],
    ]
    return common + particular[stage].collectEntries { name, location -> [(name): location.toString()] }
}

// The job that applies the transform of a stage to a volume.
def apply(fitted, volume, onto) {
    def step = "apply-transform-${fitted.stage}".toString()
    return [round: fitted.round, stage: fitted.stage, step: step, volume: volume, onto: onto, transform: fitted.transform]
}

// The location of the moving volume after a stage.
def picture(round, stage, last) {
    return "${round.folder}/${stage == last ? 'aligned' : stage}.zarr".toString()
}

// The job that makes the report of a round.
def page(round, stages) {
    return [
        round: round,
        fixed: round.near,
        moving: round.working,
        pictures: stages.collectEntries { stage -> [(stage): picture(round, stage, stages.last())] },
        matches: "${round.folder}/spots/matches.csv".toString(),
        blocks: 'local' in stages ? "${round.folder}/transforms/blocks.csv".toString() : '',
        page: "${round.folder}/report.html".toString(),
    ]
}

// A round. That of a pair has no name, and its folder is that of the results; a round of a
// samplesheet has a folder in it.
def a_round(name, moving, out) {
    def folder = name ? "${out}/${name}".toString() : out
    return [name: name, moving: moving, folder: folder, receipts: "${folder}/receipts".toString()]
}
