// Opens both volumes and checks the parameters, so that bad input fails once and not in every part.
process PLAN {
    label 'small'

    input:
    tuple val(fixed), val(moving)
    path ready, stageAs: 'ready/*'
    path config

    output:
    path 'plan.*.json'

    script:
    """
    extract-spots '${fixed}' --output fixed.csv --plan --config '${config}' > plan.fixed.json
    extract-spots '${moving}' --output moving.csv --plan --config '${config}' > plan.moving.json
    """

    stub:
    """
    echo '{}' | tee plan.fixed.json > plan.moving.json
    """
}
