// Finds the spots of one volume. `share` is a part (--part) or, after all parts, --finish.
process EXTRACT_SPOTS {
    tag "${job.round.name} ${job.step}${share.suffix}"
    label 'blocks'
    publishDir { job.round.receipts }, mode: 'copy'

    input:
    tuple val(job), val(share), path(done, stageAs: 'done/*')
    path config

    output:
    tuple val(job), path("${job.step}${share.suffix}.json")

    script:
    """
    extract-spots '${job.volume}' --output '${job.spots}' ${share.flag} --resume --config '${config}' \\
        --threads ${task.cpus} --memory ${task.memory.toMega()}M --receipt '${job.step}${share.suffix}.json' ${task.ext.args ?: ''}
    """

    stub:
    """
    echo '{}' > '${job.step}${share.suffix}.json'
    """
}
