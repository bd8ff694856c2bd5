// Picks the resolution at which a volume is aligned: a level of its image, or a reduced copy that
// is made here. The output is its location, a text file of one line.
process PICK_LEVEL {
    tag "${job.round.name} ${job.step}"
    label 'blocks'
    publishDir { job.round.receipts }, mode: 'copy', pattern: '*.json'

    input:
    val job
    path ready, stageAs: 'ready/*'
    path config

    output:
    tuple val(job), path('picked.txt'), path("${job.step}.json")

    script:
    def like = job.like ? "--like '${job.like}' " : ''
    """
    pick-level '${job.volume}' --output '${job.picked}' --scratch '${job.scratch}' ${like}--parameters '${config}' --resume --config '${config}' \\
        --threads ${task.cpus} --memory ${task.memory.toMega()}M --receipt '${job.step}.json' ${task.ext.args ?: ''}
    cp '${job.picked}' picked.txt
    """

    stub:
    """
    echo '${job.volume}' > picked.txt
    echo '{}' > '${job.step}.json'
    """
}
