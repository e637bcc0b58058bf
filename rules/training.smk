# Stores to trained networks.


rule train_network:
    input:
        data=WIRE.train_store,
        archives=WIRE.train_archives,
        masks=WIRE.masks,
        parent=WIRE.parent,
        outliers=WIRE.outliers,
        selection=WIRE.selection,
        test=WIRE.test_images,
        tokens=WIRE.tokens,
    output:
        checkpoint="<results>/models/{id}/{network}/{recipe}/seed{seed}.pt",
        record="<results>/models/{id}/{network}/{recipe}/seed{seed}.h5",
    log:
        "<logs>/models/{id}/{network}/{recipe}/seed{seed}.log",
    benchmark:
        "<benchmarks>/models/{id}/{network}/{recipe}/seed{seed}.tsv"
    wildcard_constraints:
        recipe=WIRE.recipes(),
    conda:
        "../envs/ood.yaml"
    threads: THREADS
    resources:
        gpu=lambda wc: GPUS * WIRE.gpus(wc),
        processes=WIRE.gpus,
    params:
        cfg=WIRE.train_section,
        code=WIRE.train_code,
        masks=lambda wc, input: f"--masks {input.masks}" if input.masks else "",
        parent=lambda wc, input: f"--parent {input.parent}" if input.parent else "",
        outliers=lambda wc, input: f"--outliers {input.outliers}" if input.outliers else "",
        selection=lambda wc, input: f"--selection {input.selection}" if input.selection else "",
        test=lambda wc, input: f"--test {input.test}" if input.test else "",
        tokens=lambda wc, input: f"--tokens {input.tokens}" if input.tokens else "",
        minutes=lambda wc, output: PLAN.config.resume.minutes,
        device=lambda wc, output: DEVICE,
    message:
        "train {wildcards.network} on {wildcards.id}: {wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "exec python -m workflow_scripts.stages.train_network --config {params.cfg:q} --data {input.data} {params.masks} {params.parent} "
        "{params.outliers} {params.selection} {params.test} {params.tokens} --seed {wildcards.seed} "
        "--device {params.device} --gpus {resources.processes} --threads {threads} "
        "--save-every {params.minutes} --record {output.record} --out {output.checkpoint} > {log} 2>&1"


# Label maps of the ID train images, from the class activation maps of a classifier.
rule make_masks:
    input:
        checkpoint=WIRE.classifier,
        store="<results>/data/{id}.train.h5",
    output:
        "<results>/masks/{id}/{network}/{recipe}/seed{seed}.h5",
    log:
        "<logs>/masks/{id}/{network}/{recipe}/seed{seed}.log",
    benchmark:
        "<benchmarks>/masks/{id}/{network}/{recipe}/seed{seed}.tsv"
    conda:
        "../envs/ood.yaml"
    threads: THREADS
    resources:
        gpu=GPUS,
    params:
        cfg=WIRE.masks_section,
        code=WIRE.masks_code,
        device=lambda wc, output: DEVICE,
    message:
        "label maps of {wildcards.id}/{wildcards.network}/{wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.make_masks --config {params.cfg:q} --checkpoint {input.checkpoint} "
        "--store {input.store} --device {params.device} --threads {threads} --out {output} > {log} 2>&1"


# What a frozen trunk makes of the ID train images, once for all trainings behind it.
rule cache_trunk:
    input:
        store="<results>/data/{id}.train.h5",
        archives=lambda wc: WIRE.decoded_from([(wc.id, "train")]),
        checkpoint="<results>/models/{id}/{network}/{recipe}/seed{seed}.pt",
    output:
        "<results>/trunk/{id}/{network}/{recipe}/seed{seed}.h5",
    log:
        "<logs>/trunk/{id}/{network}/{recipe}/seed{seed}.log",
    benchmark:
        "<benchmarks>/trunk/{id}/{network}/{recipe}/seed{seed}.tsv"
    conda:
        "../envs/ood.yaml"
    threads: THREADS
    resources:
        gpu=GPUS,
    params:
        cfg=WIRE.trunk_section,
        code=WIRE.trunk_code,
        device=lambda wc, output: DEVICE,
    message:
        "frozen trunk's output for {wildcards.id}: {wildcards.recipe}"
    shell:
        "python -m workflow_scripts.stages.cache_trunk --config {params.cfg:q} --checkpoint {input.checkpoint} "
        "--store {input.store} --device {params.device} --threads {threads} --out {output} > {log} 2>&1"


rule select_outliers:
    input:
        store=WIRE.outliers,
        weights=WIRE.selection_weights,
    output:
        "<results>/selection/{id}/{network}/{recipe}/seed{seed}.h5",
    log:
        "<logs>/selection/{id}/{network}/{recipe}/seed{seed}.log",
    benchmark:
        "<benchmarks>/selection/{id}/{network}/{recipe}/seed{seed}.tsv"
    localrule: True
    conda:
        "../envs/ood.yaml"
    params:
        cfg=WIRE.selection_section,
        code=digest("stages.select_outliers"),
        weights=lambda wc, input: f"--weights {input.weights}" if input.weights else "",
    message:
        "select outliers of {wildcards.id}/{wildcards.network}/{wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.select_outliers --config {params.cfg:q} --store {input.store} {params.weights} "
        "--out {output} > {log} 2>&1"


rule choose_recipe:
    input:
        unpack(WIRE.choose_inputs),
    output:
        checkpoint="<results>/models/{id}/{network}/{recipe}/seed{seed}.pt",
        csv="<results>/choice/{id}/{network}/{recipe}/seed{seed}.csv",
    log:
        "<logs>/choice/{id}/{network}/{recipe}/seed{seed}.log",
    benchmark:
        "<benchmarks>/choice/{id}/{network}/{recipe}/seed{seed}.tsv"
    wildcard_constraints:
        recipe=WIRE.recipes(chosen=True),
    conda:
        "../envs/ood.yaml"
    threads: THREADS
    resources:
        gpu=GPUS,
    params:
        cfg=WIRE.choose_section,
        code=WIRE.choose_code,
        device=lambda wc, output: DEVICE,
    message:
        "choose {wildcards.recipe} of {wildcards.network} on {wildcards.id}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.choose_recipe --config {params.cfg:q} --checkpoints {input.checkpoints} "
        "--data {input.data} --outliers {input.outliers} --device {params.device} --threads {threads} "
        "--csv {output.csv} --out {output.checkpoint} > {log} 2>&1"


rule import_weights:
    input:
        data="<results>/data/{id}.train.h5",
        parent=WIRE.parent,
        file=WIRE.import_archive,
    output:
        "<results>/models/{id}/{network}/{recipe}/seed{seed}.pt",
    log:
        "<logs>/models/{id}/{network}/{recipe}/seed{seed}.log",
    benchmark:
        "<benchmarks>/models/{id}/{network}/{recipe}/seed{seed}.tsv"
    wildcard_constraints:
        recipe=WIRE.recipes(imported=True),
    conda:
        "../envs/ood.yaml"
    threads: THREADS
    resources:
        gpu=GPUS,
    params:
        cfg=WIRE.import_section,
        code=WIRE.import_code,
        file=WIRE.import_file,
        parent=lambda wc, input: f"--parent {input.parent}" if input.parent else "",
        device=lambda wc, output: DEVICE,
    message:
        "import weights of {wildcards.network} for {wildcards.id}: {wildcards.recipe}"
    shell:
        "python -m workflow_scripts.stages.import_weights --config {params.cfg:q} --file {params.file:q} "
        "--classes-from {input.data} {params.parent} --seed {wildcards.seed} --device {params.device} --threads {threads} "
        "--out {output} > {log} 2>&1"
