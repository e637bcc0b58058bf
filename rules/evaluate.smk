# Trained networks to features, scores and metrics. One features job passes all images of a group of sets through a
# network in one process; every score after it is arithmetic on files, without torch.


rule extract_features:
    input:
        checkpoint=f"<results>/models/{RUN}.pt",
        stores=of(evaluation.feature_stores, group=GROUP),
        archives=of(evaluation.feature_archives, group=GROUP),
    output:
        sets=expand(f"<results>/features/{RUN}/{{file}}.h5", file=evaluation.feature_files(GROUP), allow_missing=True),
        head=f"<results>/features/{RUN}/head.h5",
    log:
        f"<logs>/features/{RUN}/{GROUP}.log",
    benchmark:
        f"<benchmarks>/features/{RUN}/{GROUP}.tsv"
    group:
        grouped("features_{id}_{network}")
    conda:
        ENV
    threads: THREADS
    resources:
        gpu=GPUS,
    params:
        cfg=of(evaluation.features_section, group=GROUP),
        code=of(evaluation.features_code),
        optional=flags("head"),
        device=DEVICE,
    message:
        "features of {wildcards.id}/{wildcards.network}/{wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.extract_features --config {params.cfg:q} --checkpoint {input.checkpoint} "
        "--stores {input.stores} --out {output.sets} {params.optional} {params.device} --threads {threads} > {log} 2>&1"


# The other sets in a job of their own, unless `features: {together: true}` gives all of them to the one above.
if GROUP == "id":

    use rule extract_features as extract_ood_features with:
        input:
            checkpoint=f"<results>/models/{RUN}.pt",
            stores=of(evaluation.feature_stores, group="ood"),
            archives=of(evaluation.feature_archives, group="ood"),
        output:
            sets=f"<results>/features/{RUN}/ood.h5",
        log:
            f"<logs>/features/{RUN}/ood.log",
        benchmark:
            f"<benchmarks>/features/{RUN}/ood.tsv"
        params:
            cfg=of(evaluation.features_section, group="ood"),
            code=of(evaluation.features_code),
            optional=flags("head"),
            device=DEVICE,


# How far each outlier is from what a network is sure of, before it was trained against them.
rule measure_distances:
    input:
        checkpoint=of(training.parent),
        store=of(training.outliers),
    output:
        f"<results>/distances/{RUN}.h5",
    log:
        f"<logs>/distances/{RUN}.log",
    benchmark:
        f"<benchmarks>/distances/{RUN}.tsv"
    group:
        grouped("features_{id}_{network}")
    conda:
        ENV
    threads: THREADS
    resources:
        gpu=GPUS,
    params:
        cfg=of(evaluation.distances_section),
        code=of(evaluation.distances_code),
        device=DEVICE,
    message:
        "distances of the outliers of {wildcards.id}/{wildcards.network}/{wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.measure_distances --config {params.cfg:q} --checkpoint {input.checkpoint} "
        "--store {input.store} {params.device} --threads {threads} --out {output} > {log} 2>&1"


# What a network with a background output sees in a few images, for a picture.
rule make_panels:
    input:
        unpack(of(evaluation.panels_inputs)),
    output:
        f"<results>/panels/{RUN}.h5",
    log:
        f"<logs>/panels/{RUN}.log",
    benchmark:
        f"<benchmarks>/panels/{RUN}.tsv"
    group:
        grouped("features_{id}_{network}")
    conda:
        ENV
    threads: THREADS
    resources:
        gpu=GPUS,
    params:
        cfg=of(evaluation.panels_section),
        code=of(evaluation.panels_code),
        device=DEVICE,
    message:
        "maps of {wildcards.id}/{wildcards.network}/{wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.make_panels --config {params.cfg:q} --classifier {input.classifier} "
        "--checkpoint {input.checkpoint} --stores {input.stores} {params.device} --threads {threads} "
        "--out {output} > {log} 2>&1"


rule precompute_statistics:
    input:
        f"<results>/features/{RUN}/{{id}}.train.h5",
    output:
        f"<results>/precompute/{RUN}.h5",
    log:
        f"<logs>/precompute/{RUN}.log",
    benchmark:
        f"<benchmarks>/precompute/{RUN}.tsv"
    group:
        grouped("features_{id}_{network}")
    conda:
        ENV
    params:
        code=digest("stages.precompute_statistics"),
    message:
        "class means of {wildcards.id}/{wildcards.network}/{wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.precompute_statistics --train {input} --out {output} > {log} 2>&1"


rule score_sets:
    input:
        unpack(of(evaluation.score_inputs)),
    output:
        f"<results>/scores/{RUN}/{{score}}.h5",
    log:
        f"<logs>/scores/{RUN}/{{score}}.log",
    benchmark:
        f"<benchmarks>/scores/{RUN}/{{score}}.tsv"
    wildcard_constraints:
        score=evaluation.scores(PLAN, network=False),
    group:
        grouped("scores_{id}_{network}")
    conda:
        ENV
    params:
        cfg=of(evaluation.score_section),
        code=of(evaluation.score_code),
        optional=flags("head", "train", "statistics", "choice"),
    message:
        "score {wildcards.score} on {wildcards.id}/{wildcards.network}/{wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.score_sets --config {params.cfg:q} --sets {input.sets} {params.optional} "
        "--out {output} > {log} 2>&1"


rule fuse_scores:
    input:
        unpack(of(evaluation.fused_inputs)),
    output:
        f"<results>/scores/{RUN}/{{score}}.h5",
    log:
        f"<logs>/scores/{RUN}/{{score}}.log",
    benchmark:
        f"<benchmarks>/scores/{RUN}/{{score}}.tsv"
    wildcard_constraints:
        score=evaluation.scores(PLAN, fused=True),
    group:
        grouped("scores_{id}_{network}")
    conda:
        ENV
    params:
        cfg=of(evaluation.fused_section),
        code=of(evaluation.fused_code),
    message:
        "score {wildcards.score} on {wildcards.id}/{wildcards.network}/{wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.fuse_scores --config {params.cfg:q} --foreground {input.foreground} "
        "--background {input.background} --out {output} > {log} 2>&1"


rule score_network:
    input:
        unpack(of(evaluation.network_score_inputs)),
        checkpoint=f"<results>/models/{RUN}.pt",
    output:
        f"<results>/scores/{RUN}/{{score}}.h5",
    log:
        f"<logs>/scores/{RUN}/{{score}}.log",
    benchmark:
        f"<benchmarks>/scores/{RUN}/{{score}}.tsv"
    wildcard_constraints:
        score=evaluation.scores(PLAN, network=True),
    group:
        grouped("features_{id}_{network}")
    conda:
        ENV
    threads: THREADS
    resources:
        gpu=GPUS,
    params:
        cfg=of(evaluation.network_score_section),
        code=of(evaluation.network_score_code),
        optional=flags("train_store", "statistics", "choice"),
        device=DEVICE,
    message:
        "score {wildcards.score} on {wildcards.id}/{wildcards.network}/{wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.score_network --config {params.cfg:q} --checkpoint {input.checkpoint} "
        "--stores {input.stores} {params.optional} {params.device} --threads {threads} "
        "--out {output} > {log} 2>&1"


rule compute_metrics:
    input:
        scores=of(evaluation.metrics_inputs),
        id_features=f"<results>/features/{RUN}/{{id}}.test.h5",
        statistics=of(evaluation.metrics_statistics),
        together="<results>/compared/{id}.json",  # no number of sets that do not go together
    output:
        f"<results>/metrics/{RUN}.csv",
    log:
        f"<logs>/metrics/{RUN}.log",
    benchmark:
        f"<benchmarks>/metrics/{RUN}.tsv"
    group:
        grouped("scores_{id}_{network}")
    conda:
        ENV
    params:
        cfg=of(evaluation.metrics_section),
        code=of(evaluation.metrics_code),
        optional=flags("statistics"),
    message:
        "metrics of {wildcards.id}/{wildcards.network}/{wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.compute_metrics --config {params.cfg:q} --scores {input.scores} "
        "--id-features {input.id_features} {params.optional} --out {output} > {log} 2>&1"


# Scores that another tool computed: the same metrics, for the same tables.
rule import_scores:
    input:
        unpack(of(evaluation.imported_inputs)),
    output:
        scores=f"<results>/imported/{RUN}.h5",
        metrics=f"<results>/imported/{RUN}.csv",
    log:
        f"<logs>/imported/{RUN}.log",
    benchmark:
        f"<benchmarks>/imported/{RUN}.tsv"
    conda:
        ENV
    params:
        cfg=of(evaluation.imported_section),
        code=of(evaluation.imported_code),
    message:
        "import scores {wildcards.recipe} on {wildcards.id}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.import_scores --config {params.cfg:q} --files {input.files:q} "
        "--stores {input.stores} --scores {output.scores} --metrics {output.metrics} > {log} 2>&1"
