// Spots of one volume; `share` is 'part K/N' or, after all parts, 'finish'.
process EXTRACT_SPOTS {
    tag "${step} ${share}"
    label 'blocks'

    input:
    tuple val(step), val(volume), val(spots)
    val share
    path done, stageAs: 'done/*'
    path config

    output:
    path "${step}.*.json"

    script:
    def receipt = "${step}.${share.replaceAll('[ /]', '-')}.json"
    """
    extract-spots '${volume}' --output '${spots}' --${share} --resume --config '${config}' \\
        --threads ${task.cpus} --memory ${task.memory.toMega()}M --receipt '${receipt}' ${task.ext.args ?: ''}
    """

    stub:
    """
    echo '{}' > '${step}.${share.replaceAll('[ /]', '-')}.json'
    """
}
