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
        checkpoint=f"<results>/models/{RUN}.pt",
        record=f"<results>/models/{RUN}.h5",
    log:
        f"<logs>/models/{RUN}.log",
    benchmark:
        f"<benchmarks>/models/{RUN}.tsv"
    wildcard_constraints:
        recipe=WIRE.recipes(),
    conda:
        ENV
    threads: THREADS
    resources:
        gpu=lambda wc: GPUS * WIRE.gpus(wc),
        processes=WIRE.gpus,
    params:
        cfg=WIRE.train_section,
        code=WIRE.train_code,
        optional=flags("masks", "parent", "outliers", "selection", "test", "tokens"),
        device=DEVICE,
        minutes=untracked(PLAN.config.resume.minutes),
    message:
        "train {wildcards.network} on {wildcards.id}: {wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "exec python -m workflow_scripts.stages.train_network --config {params.cfg:q} --data {input.data} "
        "{params.optional} --seed {wildcards.seed} {params.device} --gpus {resources.processes} --threads {threads} "
        "--save-every {params.minutes} --record {output.record} --out {output.checkpoint} > {log} 2>&1"


# Label maps of the ID train images, from the class activation maps of a classifier.
rule make_masks:
    input:
        checkpoint=WIRE.classifier,
        store="<results>/data/{id}.train.h5",
    output:
        f"<results>/masks/{RUN}.h5",
    log:
        f"<logs>/masks/{RUN}.log",
    benchmark:
        f"<benchmarks>/masks/{RUN}.tsv"
    conda:
        ENV
    threads: THREADS
    resources:
        gpu=GPUS,
    params:
        cfg=WIRE.masks_section,
        code=WIRE.masks_code,
        device=DEVICE,
    message:
        "label maps of {wildcards.id}/{wildcards.network}/{wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.make_masks --config {params.cfg:q} --checkpoint {input.checkpoint} "
        "--store {input.store} {params.device} --threads {threads} --out {output} > {log} 2>&1"


# What a frozen trunk makes of the ID train images, once for all trainings behind it.
rule cache_trunk:
    input:
        store="<results>/data/{id}.train.h5",
        archives=lambda wc: WIRE.decoded_from([(wc.id, "train")]),
        checkpoint=f"<results>/models/{RUN}.pt",
    output:
        f"<results>/trunk/{RUN}.h5",
    log:
        f"<logs>/trunk/{RUN}.log",
    benchmark:
        f"<benchmarks>/trunk/{RUN}.tsv"
    conda:
        ENV
    threads: THREADS
    resources:
        gpu=GPUS,
    params:
        cfg=WIRE.trunk_section,
        code=WIRE.trunk_code,
        device=DEVICE,
    message:
        "frozen trunk's output for {wildcards.id}: {wildcards.recipe}"
    shell:
        "python -m workflow_scripts.stages.cache_trunk --config {params.cfg:q} --checkpoint {input.checkpoint} "
        "--store {input.store} {params.device} --threads {threads} --out {output} > {log} 2>&1"


rule select_outliers:
    input:
        store=WIRE.outliers,
        weights=WIRE.selection_weights,
    output:
        f"<results>/selection/{RUN}.h5",
    log:
        f"<logs>/selection/{RUN}.log",
    benchmark:
        f"<benchmarks>/selection/{RUN}.tsv"
    localrule: True
    conda:
        ENV
    params:
        cfg=WIRE.selection_section,
        code=digest("stages.select_outliers"),
        optional=flags("weights"),
    message:
        "select outliers of {wildcards.id}/{wildcards.network}/{wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.select_outliers --config {params.cfg:q} --store {input.store} "
        "{params.optional} --out {output} > {log} 2>&1"


rule choose_recipe:
    input:
        unpack(WIRE.choose_inputs),
    output:
        checkpoint=f"<results>/models/{RUN}.pt",
        csv=f"<results>/choice/{RUN}.csv",
    log:
        f"<logs>/choice/{RUN}.log",
    benchmark:
        f"<benchmarks>/choice/{RUN}.tsv"
    wildcard_constraints:
        recipe=WIRE.recipes(chosen=True),
    conda:
        ENV
    threads: THREADS
    resources:
        gpu=GPUS,
    params:
        cfg=WIRE.choose_section,
        code=WIRE.choose_code,
        device=DEVICE,
    message:
        "choose {wildcards.recipe} of {wildcards.network} on {wildcards.id}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.choose_recipe --config {params.cfg:q} --checkpoints {input.checkpoints} "
        "--data {input.data} --outliers {input.outliers} {params.device} --threads {threads} "
        "--csv {output.csv} --out {output.checkpoint} > {log} 2>&1"


rule import_weights:
    input:
        data="<results>/data/{id}.train.h5",
        parent=WIRE.parent,
        file=WIRE.import_archive,
    output:
        f"<results>/models/{RUN}.pt",
    log:
        f"<logs>/models/{RUN}.log",
    benchmark:
        f"<benchmarks>/models/{RUN}.tsv"
    wildcard_constraints:
        recipe=WIRE.recipes(imported=True),
    conda:
        ENV
    threads: THREADS
    resources:
        gpu=GPUS,
    params:
        cfg=WIRE.import_section,
        code=WIRE.import_code,
        file=WIRE.import_file,
        optional=flags("parent"),
        device=DEVICE,
    message:
        "import weights of {wildcards.network} for {wildcards.id}: {wildcards.recipe}"
    shell:
        "python -m workflow_scripts.stages.import_weights --config {params.cfg:q} --file {params.file:q} "
        "--classes-from {input.data} {params.optional} --seed {wildcards.seed} {params.device} --threads {threads} "
        "--out {output} > {log} 2>&1"
