// Applies a transform to a volume. `share` is a part (--part) or, after all parts, --finish.
process APPLY_TRANSFORM {
    tag "${job.round.name} ${job.step}${share.suffix}"
    label 'blocks'
    publishDir { job.round.receipts }, mode: 'copy'

    input:
    tuple val(job), val(share), path(done, stageAs: 'done/*')
    path config

    output:
    tuple val(job), path("${job.step}${share.suffix}.json")

    script:
    def choice = (job.index ? "--moving-channel ${job.index} " : '') + (job.kind == 'labels' ? '--interpolation nearest ' : '')
    """
    apply-transform '${job.volume}' --onto '${job.onto}' --transform '${job.transform}' --output '${job.output}' \\
        ${choice}${share.flag} --resume --config '${config}' \\
        --threads ${task.cpus} --memory ${task.memory.toMega()}M --receipt '${job.step}${share.suffix}.json' ${task.ext.args ?: ''}
    """

    stub:
    """
    echo '{}' > '${job.step}${share.suffix}.json'
    """
}
