// One affine from the spots of both volumes.
process RANSAC {
    label 'small'

    input:
    tuple val(fixed), val(moving)
    tuple val(fixed_spots), val(moving_spots)
    tuple val(transform), val(matches)
    path done, stageAs: 'done/*'
    path config

    output:
    path 'ransac.json'

    script:
    """
    ransac '${fixed}' '${moving}' --fixed-spots '${fixed_spots}' --moving-spots '${moving_spots}' \\
        --output '${transform}' --matches '${matches}' --overwrite --config '${config}' \\
        --threads ${task.cpus} --memory ${task.memory.toMega()}M --receipt ransac.json ${task.ext.args ?: ''}
    """

    stub:
    """
    echo '{}' > ransac.json
    """
}
