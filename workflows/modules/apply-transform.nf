// A volume through a transform; `share` is 'part K/N' or, after all parts, 'finish'.
process APPLY_TRANSFORM {
    tag "${step} ${share}"
    label 'blocks'

    input:
    tuple val(step), val(moving), val(onto), val(transform), val(output)
    val share
    path done, stageAs: 'done/*'
    path config

    output:
    path "${step}.*.json"

    script:
    def receipt = "${step}.${share.replaceAll('[ /]', '-')}.json"
    """
    apply-transform '${moving}' --onto '${onto}' --transform '${transform}' --output '${output}' \\
        --${share} --resume --config '${config}' \\
        --threads ${task.cpus} --memory ${task.memory.toMega()}M --receipt '${receipt}' ${task.ext.args ?: ''}
    """

    stub:
    """
    echo '{}' > '${step}.${share.replaceAll('[ /]', '-')}.json'
    """
}
