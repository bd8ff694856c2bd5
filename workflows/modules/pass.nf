// A pass of the workflow `stack`: each section is compared with those before it as they lie after the
// pass before, and all sections are aligned together.

include { RUN as FLOW ; RUN as FLOW_FINISH ; RUN as CLEAN_FLOW ; RUN as RELAX } from './run'
include { all_parts ; by_name ; in_parts } from './parameters'

workflow PASS {
    take:
    states // [setup, number of the pass, receipts of the steps before]; nothing is done after the last pass
    parts // number of parts
    config // the parameters file

    main:
    todo = states.filter { setup, number, _done -> number <= setup.passes.size() }
    FLOW(in_parts(todo.flatMap { setup, number, done -> distances(setup, number).collect { d -> [flow_job(setup, number, d), done] } }, parts), config)
    FLOW_FINISH(all_parts(FLOW.out, parts), config)
    CLEAN_FLOW(FLOW_FINISH.out.map { job, receipt -> [clean_job(job), whole(), receipt] }, config)
    measured = CLEAN_FLOW.out.map { _job, receipt -> receipt }.toList().map { receipts -> [by_name(receipts)] }
    RELAX(todo.combine(measured).map { setup, number, _done, receipts -> [relax_job(setup, number), whole(), receipts] }, config)
    flows = FLOW_FINISH.out.map { _job, receipt -> receipt }.toList().map { receipts -> [by_name(receipts)] }
    next = todo.combine(flows).combine(RELAX.out).map { setup, number, done, receipts, _job, receipt -> [setup, number + 1, done + receipts + [receipt]] }

    emit:
    next
}

// The share of a step that is not divided into parts.
def whole() {
    return [flag: '', suffix: '']
}

def distances(setup, number) {
    return (1..(setup.passes[number - 1].distance as int)).toList()
}

// The flag for the chain with which a pass begins, if there is one.
def through(setup, number) {
    def chain = number > 1 ? "${setup.out}/pass${number - 1}.json" : setup.rough ? "${setup.out}/rough.json" : ''
    return chain ? "--through '${chain}'" : ''
}

// The given flags with the mask of the sections, if there is one.
def masks(setup, flags) {
    return setup.mask ? flags.collect { flag -> "${flag} '${setup.out}/mask.zarr'" }.join(' ') : ''
}

// The location of the stack at the resolution of a pass, and the flags that say its pixel size.
def seen(setup, reduction, flags) {
    def at_full_size = reduction == '1'
    def location = at_full_size ? setup.stack : "${setup.out}/working/reduced${reduction}.zarr"
    def spacing = at_full_size && setup.spacing ? flags.collect { flag -> "${flag} '${setup.spacing}'" }.join(' ') : ''
    return [location: location.toString(), spacing: spacing]
}

def flow_job(setup, number, distance) {
    def pass = setup.passes[number - 1]
    def stack = seen(setup, pass.reduction, ['--fixed-spacing', '--moving-spacing'])
    def at = "${setup.out}/working"
    return [
        step: "flow-${number}-${distance}".toString(),
        receipts: setup.receipts,
        lenient: true,
        line: ("flow '${stack.location}' '${stack.location}' ${stack.spacing} --planes --distance ${distance} --patch ${pass.patch} " +
            "--search ${pass.search} ${through(setup, number)} ${masks(setup, ['--fixed-mask', '--moving-mask'])} --output '${at}/flow-pass${number}-${distance}.zarr'").toString(),
        found: "${at}/flow-pass${number}-${distance}.json".toString(),
        cleaned: "${at}/clean-pass${number}-${distance}.zarr".toString(),
        name: "clean-flow-${number}-${distance}".toString(),
    ]
}

def clean_job(flow) {
    return [
        step: flow.name,
        receipts: flow.receipts,
        lenient: true,
        before: "if [ ! -e '${flow.found}' ]; then echo '{}' > '${flow.name}.json'; exit 0; fi".toString(),
        line: "clean-flow '${flow.found}' --output '${flow.cleaned}'".toString(),
    ]
}

def relax_job(setup, number) {
    def fields = distances(setup, number).collect { d -> "'${setup.out}/working/clean-pass${number}-${d}.json'" }.join(' ')
    def gather = "set --; for field in ${fields}; do [ ! -e \"\$field\" ] || set -- \"\$@\" \"\$field\"; done"
    def nothing = "if [ \$# -eq 0 ]; then echo 'no matches were found; give a first pass with a larger SEARCH (--passes)' >&2; exit 3; fi"
    return [
        step: "relax-${number}".toString(),
        receipts: setup.receipts,
        before: [gather, nothing].join('; '),
        line: "relax \"\$@\" --stack ${through(setup, number)} ${masks(setup, ['--mask'])} --output '${setup.out}/pass${number}.zarr'".toString(),
    ]
}
