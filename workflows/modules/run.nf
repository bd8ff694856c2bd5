// A step of the workflow `stack`: the command line of a program. `share` is a part (--part) or, after
// all parts, --finish. `before` is shell text that comes before the command line. Exit code 3 of a
// lenient step means that its result was rejected; the workflow then continues without this result.
process RUN {
    tag "${job.step}${share.suffix}"
    label 'blocks'
    publishDir { job.receipts }, mode: 'copy'

    input:
    tuple val(job), val(share), path(done, stageAs: 'done/*')
    path config

    output:
    tuple val(job), path("${job.step}${share.suffix}.json")

    script:
    def lenient = job.lenient ? '|| [ $? -eq 3 ]' : ''
    """
    ${job.before ?: ''}
    ${job.line} ${share.flag} ${job.again ?: '--resume'} --config '${config}' \\
        --threads ${task.cpus} --memory ${task.memory.toMega()}M --receipt '${job.step}${share.suffix}.json' ${task.ext.args ?: ''} ${lenient}
    """

    stub:
    """
    echo '{}' > '${job.step}${share.suffix}.json'
    """
}
