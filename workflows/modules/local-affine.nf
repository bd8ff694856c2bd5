// One affine per block; `share` is 'part K/N' or, after all parts, 'finish'.
process LOCAL_AFFINE {
    tag "${share}"
    label 'blocks'

    input:
    tuple val(fixed), val(moving)
    val initial
    tuple val(transform), val(table)
    val share
    path done, stageAs: 'done/*'
    path config

    output:
    path 'local-affine.*.json'

    script:
    def receipt = "local-affine.${share.replaceAll('[ /]', '-')}.json"
    """
    local-affine '${fixed}' '${moving}' --initial '${initial}' --output '${transform}' --table '${table}' \\
        --${share} --resume --config '${config}' \\
        --threads ${task.cpus} --memory ${task.memory.toMega()}M --receipt '${receipt}' ${task.ext.args ?: ''}
    """

    stub:
    """
    echo '{}' > 'local-affine.${share.replaceAll('[ /]', '-')}.json'
    """
}
