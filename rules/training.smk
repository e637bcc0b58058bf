# Stores to trained networks.


# First epochs that several trainings share (work/starts.py).
rule train_start:
    input:
        unpack(of(training.start_inputs)),
    output:
        f"<results>/starts/{START}.pt",
    log:
        f"<logs>/starts/{START}.log",
    benchmark:
        f"<benchmarks>/starts/{START}.tsv"
    conda:
        ENV
    threads: THREADS
    resources:
        **on_gpu(training.start_gpus),
        processes=of(training.start_gpus),
    params:
        cfg=of(training.start_section),
        code=of(training.start_code),
        optional=flags("parent", "test", "tokens"),
        device=TRAINED_ON,
        minutes=untracked(PLAN.config.resume.minutes),
    message:
        "train the first epochs {wildcards.start} of {wildcards.network} on {wildcards.id}, seed {wildcards.seed}"
    shell:
        "exec python -m workflow_scripts.stages.train_start --config {params.cfg:q} --data {input.data} "
        "{params.optional} --seed {wildcards.seed} {params.device} --gpus {resources.processes} "
        "--share {resources.trainings} --threads {threads} --save-every {params.minutes} --out {output} > {log} 2>&1"


rule train_network:
    input:
        start=of(training.start),
        data=of(training.train_store),
        archives=of(training.train_archives),
        masks=of(training.masks),
        parent=of(training.parent),
        outliers=of(training.outliers),
        selection=of(training.selection),
        test=of(training.test_images),
        tokens=of(training.tokens),
    output:
        checkpoint=f"<results>/models/{RUN}.pt",
        record=f"<results>/models/{RUN}.h5",
    log:
        f"<logs>/models/{RUN}.log",
    benchmark:
        f"<benchmarks>/models/{RUN}.tsv"
    wildcard_constraints:
        recipe=training.recipes(PLAN),
    conda:
        ENV
    threads: THREADS
    resources:
        **on_gpu(training.gpus),
        processes=of(training.gpus),
    params:
        cfg=of(training.train_section),
        code=of(training.train_code),
        optional=flags("start", "masks", "parent", "outliers", "selection", "test", "tokens"),
        device=TRAINED_ON,
        minutes=untracked(PLAN.config.resume.minutes),
    message:
        "train {wildcards.network} on {wildcards.id}: {wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "exec python -m workflow_scripts.stages.train_network --config {params.cfg:q} --data {input.data} "
        "{params.optional} --seed {wildcards.seed} {params.device} --gpus {resources.processes} "
        "--share {resources.trainings} --threads {threads} --save-every {params.minutes} --record {output.record} "
        "--out {output.checkpoint} > {log} 2>&1"


# Pseudo-masks of the ID train images, from the class activation maps of a classifier.
rule make_masks:
    input:
        checkpoint=of(training.classifier),
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
        cfg=of(training.masks_section),
        code=of(training.masks_code),
        device=DEVICE,
    message:
        "pseudo-masks of {wildcards.id}/{wildcards.network}/{wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.make_masks --config {params.cfg:q} --checkpoint {input.checkpoint} "
        "--store {input.store} {params.device} --threads {threads} --out {output} > {log} 2>&1"


# What frozen blocks make of the ID train images, once for all trainings behind it.
rule cache_frozen_blocks:
    input:
        store="<results>/data/{id}.train.h5",
        archives=lambda wc: data.decoded_from(PLAN, [(wc.id, "train")]),
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
        cfg=of(training.frozen_blocks_section),
        code=of(training.frozen_blocks_code),
        device=DEVICE,
    message:
        "frozen blocks' output for {wildcards.id}: {wildcards.recipe}"
    shell:
        "python -m workflow_scripts.stages.cache_frozen_blocks --config {params.cfg:q} --checkpoint {input.checkpoint} "
        "--store {input.store} {params.device} --threads {threads} --out {output} > {log} 2>&1"


rule select_outliers:
    input:
        store=of(training.outliers),
        weights=of(training.selection_weights),
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
        cfg=of(training.selection_section),
        code=digest("stages.select_outliers"),
        optional=flags("weights"),
    message:
        "select outliers of {wildcards.id}/{wildcards.network}/{wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.select_outliers --config {params.cfg:q} --store {input.store} "
        "{params.optional} --out {output} > {log} 2>&1"


rule select_best_recipe:
    input:
        unpack(of(training.select_best_inputs)),
    output:
        checkpoint=f"<results>/models/{RUN}.pt",
        csv=f"<results>/choice/{RUN}.csv",
    log:
        f"<logs>/choice/{RUN}.log",
    benchmark:
        f"<benchmarks>/choice/{RUN}.tsv"
    wildcard_constraints:
        recipe=training.recipes(PLAN, chosen=True),
    conda:
        ENV
    threads: THREADS
    resources:
        gpu=GPUS,
    params:
        cfg=of(training.select_best_section),
        code=of(training.select_best_code),
        device=DEVICE,
    message:
        "select {wildcards.recipe} of {wildcards.network} on {wildcards.id}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.select_best_recipe --config {params.cfg:q} --checkpoints {input.checkpoints} "
        "--data {input.data} --outliers {input.outliers} {params.device} --threads {threads} "
        "--csv {output.csv} --out {output.checkpoint} > {log} 2>&1"


rule import_weights:
    input:
        data="<results>/data/{id}.train.h5",
        parent=of(training.parent),
        file=of(training.import_archive),
    output:
        f"<results>/models/{RUN}.pt",
    log:
        f"<logs>/models/{RUN}.log",
    benchmark:
        f"<benchmarks>/models/{RUN}.tsv"
    wildcard_constraints:
        recipe=training.recipes(PLAN, imported=True),
    conda:
        ENV
    threads: THREADS
    resources:
        gpu=GPUS,
    params:
        cfg=of(training.import_section),
        code=of(training.import_code),
        file=of(training.import_file),
        optional=flags("parent"),
        device=DEVICE,
    message:
        "import weights of {wildcards.network} for {wildcards.id}: {wildcards.recipe}"
    shell:
        "python -m workflow_scripts.stages.import_weights --config {params.cfg:q} --file {params.file:q} "
        "--classes-from {input.data} {params.optional} --seed {wildcards.seed} {params.device} --threads {threads} "
        "--out {output} > {log} 2>&1"
