# Trained networks to features, scores and metrics. One features job passes all images of a group of sets through a
# network in one process; every score after it is arithmetic on files, without torch.

for ID, GROUP, SETS in PLAN.feature_groups():

    rule:
        name:
            f"features_{ID}_{GROUP}"
        input:
            checkpoint=f"<results>/models/{ID}/{{network}}/{{recipe}}/seed{{seed}}.pt",
            stores=[WIRE.store(dataset, split) for dataset, split in SETS],
            archives=WIRE.decoded_from(SETS),
        output:
            sets=[
                f"<results>/features/{ID}/{{network}}/{{recipe}}/seed{{seed}}/{name}.h5"
                for name in WIRE.features_names(ID, SETS)
            ],
            head=[f"<results>/features/{ID}/{{network}}/{{recipe}}/seed{{seed}}/head.h5"] if GROUP != "ood" else [],
        log:
            f"<logs>/features/{ID}/{{network}}/{{recipe}}/seed{{seed}}/{GROUP}.log",
        benchmark:
            f"<benchmarks>/features/{ID}/{{network}}/{{recipe}}/seed{{seed}}/{GROUP}.tsv"
        group:
            grouped("features_{id}_{network}", id=ID)
        conda:
            "../envs/ood.yaml"
        threads: THREADS
        resources:
            gpu=GPUS,
        params:
            cfg=WIRE.features_section(ID, SETS),
            code=WIRE.features_code(ID),
            head=lambda wc, output: f"--head {output.head}" if output.head else "",
            device=lambda wc, output: DEVICE,
        message:
            f"features of {ID}/{{wildcards.network}}/{{wildcards.recipe}}, seed {{wildcards.seed}}"
        shell:
            "python -m workflow_scripts.stages.extract_features --config {params.cfg:q} --checkpoint {input.checkpoint} "
            "--stores {input.stores} --out {output.sets} {params.head} --device {params.device} "
            "--threads {threads} > {log} 2>&1"


# How far each outlier is from what a network is sure of, before it was trained against them.
rule measure_distances:
    input:
        checkpoint=WIRE.parent,
        store=WIRE.outliers,
    output:
        "<results>/distances/{id}/{network}/{recipe}/seed{seed}.h5",
    log:
        "<logs>/distances/{id}/{network}/{recipe}/seed{seed}.log",
    benchmark:
        "<benchmarks>/distances/{id}/{network}/{recipe}/seed{seed}.tsv"
    group:
        grouped("features_{id}_{network}")
    conda:
        "../envs/ood.yaml"
    threads: THREADS
    resources:
        gpu=GPUS,
    params:
        cfg=WIRE.distances_section,
        code=WIRE.distances_code,
        device=lambda wc, output: DEVICE,
    message:
        "distances of the outliers of {wildcards.id}/{wildcards.network}/{wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.measure_distances --config {params.cfg:q} --checkpoint {input.checkpoint} "
        "--store {input.store} --device {params.device} --threads {threads} --out {output} > {log} 2>&1"


# What a network with a background output sees in a few images, for a picture.
rule make_panels:
    input:
        unpack(WIRE.panels_inputs),
    output:
        "<results>/panels/{id}/{network}/{recipe}/seed{seed}.h5",
    log:
        "<logs>/panels/{id}/{network}/{recipe}/seed{seed}.log",
    benchmark:
        "<benchmarks>/panels/{id}/{network}/{recipe}/seed{seed}.tsv"
    group:
        grouped("features_{id}_{network}")
    conda:
        "../envs/ood.yaml"
    threads: THREADS
    resources:
        gpu=GPUS,
    params:
        cfg=WIRE.panels_section,
        code=WIRE.panels_code,
        device=lambda wc, output: DEVICE,
    message:
        "maps of {wildcards.id}/{wildcards.network}/{wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.make_panels --config {params.cfg:q} --classifier {input.classifier} "
        "--checkpoint {input.checkpoint} --stores {input.stores} --device {params.device} --threads {threads} "
        "--out {output} > {log} 2>&1"


rule precompute_statistics:
    input:
        "<results>/features/{id}/{network}/{recipe}/seed{seed}/{id}.train.h5",
    output:
        "<results>/precompute/{id}/{network}/{recipe}/seed{seed}.h5",
    log:
        "<logs>/precompute/{id}/{network}/{recipe}/seed{seed}.log",
    benchmark:
        "<benchmarks>/precompute/{id}/{network}/{recipe}/seed{seed}.tsv"
    group:
        grouped("features_{id}_{network}")
    conda:
        "../envs/ood.yaml"
    params:
        code=digest("stages.precompute_statistics"),
    message:
        "class means of {wildcards.id}/{wildcards.network}/{wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.precompute_statistics --train {input} --out {output} > {log} 2>&1"


rule score_sets:
    input:
        unpack(WIRE.score_inputs),
    output:
        "<results>/scores/{id}/{network}/{recipe}/seed{seed}/{score}.h5",
    log:
        "<logs>/scores/{id}/{network}/{recipe}/seed{seed}/{score}.log",
    benchmark:
        "<benchmarks>/scores/{id}/{network}/{recipe}/seed{seed}/{score}.tsv"
    wildcard_constraints:
        score=WIRE.scores(network=False),
    group:
        grouped("scores_{id}_{network}")
    conda:
        "../envs/ood.yaml"
    params:
        cfg=WIRE.score_section,
        code=WIRE.score_code,
        known=lambda wc, input: " ".join(
            f"--{name} {input[name]}" for name in ("head", "train", "statistics", "choice") if name in input.keys()
        ),
    message:
        "score {wildcards.score} on {wildcards.id}/{wildcards.network}/{wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.score_sets --config {params.cfg:q} --sets {input.sets} {params.known} "
        "--out {output} > {log} 2>&1"


rule fuse_scores:
    input:
        unpack(WIRE.fused_inputs),
    output:
        "<results>/scores/{id}/{network}/{recipe}/seed{seed}/{score}.h5",
    log:
        "<logs>/scores/{id}/{network}/{recipe}/seed{seed}/{score}.log",
    benchmark:
        "<benchmarks>/scores/{id}/{network}/{recipe}/seed{seed}/{score}.tsv"
    wildcard_constraints:
        score=WIRE.scores(fused=True),
    group:
        grouped("scores_{id}_{network}")
    conda:
        "../envs/ood.yaml"
    params:
        cfg=WIRE.fused_section,
        code=WIRE.fused_code,
    message:
        "score {wildcards.score} on {wildcards.id}/{wildcards.network}/{wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.fuse_scores --config {params.cfg:q} --foreground {input.foreground} "
        "--background {input.background} --out {output} > {log} 2>&1"


rule score_network:
    input:
        unpack(WIRE.network_score_inputs),
        checkpoint="<results>/models/{id}/{network}/{recipe}/seed{seed}.pt",
    output:
        "<results>/scores/{id}/{network}/{recipe}/seed{seed}/{score}.h5",
    log:
        "<logs>/scores/{id}/{network}/{recipe}/seed{seed}/{score}.log",
    benchmark:
        "<benchmarks>/scores/{id}/{network}/{recipe}/seed{seed}/{score}.tsv"
    wildcard_constraints:
        score=WIRE.scores(network=True),
    group:
        grouped("features_{id}_{network}")
    conda:
        "../envs/ood.yaml"
    threads: THREADS
    resources:
        gpu=GPUS,
    params:
        cfg=WIRE.network_score_section,
        code=WIRE.network_score_code,
        train=lambda wc, input: f"--train-store {input.train}" if "train" in input.keys() else "",
        device=lambda wc, output: DEVICE,
    message:
        "score {wildcards.score} on {wildcards.id}/{wildcards.network}/{wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.score_network --config {params.cfg:q} --checkpoint {input.checkpoint} "
        "--stores {input.stores} {params.train} --device {params.device} --threads {threads} "
        "--out {output} > {log} 2>&1"


rule choose_options:
    input:
        unpack(WIRE.sweep_inputs),
        checkpoint="<results>/models/{id}/{network}/{recipe}/seed{seed}.pt",
        store="<results>/data/{id}.train.h5",
        archives=lambda wc: WIRE.decoded_from([(wc.id, "train")]),
    output:
        csv="<results>/sweep/{id}/{network}/{recipe}/seed{seed}/{score}.csv",
        json="<results>/sweep/{id}/{network}/{recipe}/seed{seed}/{score}.json",
    log:
        "<logs>/sweep/{id}/{network}/{recipe}/seed{seed}/{score}.log",
    benchmark:
        "<benchmarks>/sweep/{id}/{network}/{recipe}/seed{seed}/{score}.tsv"
    group:
        grouped("features_{id}_{network}")
    conda:
        "../envs/ood.yaml"
    threads: THREADS
    resources:
        gpu=GPUS,
    params:
        cfg=WIRE.sweep_section,
        code=WIRE.sweep_code,
        known=lambda wc, input: " ".join(
            f"--{name} {input[name]}" for name in ("statistics", "train") if name in input.keys()
        ),
        device=lambda wc, output: DEVICE,
    message:
        "choose options of {wildcards.score} on {wildcards.id}/{wildcards.network}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.choose_options --config {params.cfg:q} --checkpoint {input.checkpoint} "
        "--store {input.store} {params.known} --csv {output.csv} --json {output.json} "
        "--device {params.device} --threads {threads} > {log} 2>&1"


rule compute_metrics:
    input:
        scores=WIRE.metrics_inputs,
        id_features="<results>/features/{id}/{network}/{recipe}/seed{seed}/{id}.test.h5",
        statistics=WIRE.metrics_statistics,
    output:
        "<results>/metrics/{id}/{network}/{recipe}/seed{seed}.csv",
    log:
        "<logs>/metrics/{id}/{network}/{recipe}/seed{seed}.log",
    benchmark:
        "<benchmarks>/metrics/{id}/{network}/{recipe}/seed{seed}.tsv"
    group:
        grouped("scores_{id}_{network}")
    conda:
        "../envs/ood.yaml"
    params:
        cfg=WIRE.metrics_section,
        code=WIRE.metrics_code,
        statistics=lambda wc, input: f"--statistics {input.statistics}" if input.statistics else "",
    message:
        "metrics of {wildcards.id}/{wildcards.network}/{wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.compute_metrics --config {params.cfg:q} --scores {input.scores} "
        "--id-features {input.id_features} {params.statistics} --out {output} > {log} 2>&1"


# Scores that another tool computed: the same metrics, for the same tables.
rule import_scores:
    input:
        unpack(WIRE.imported_inputs),
    output:
        scores="<results>/imported/{id}/{network}/{recipe}/seed{seed}.h5",
        metrics="<results>/imported/{id}/{network}/{recipe}/seed{seed}.csv",
    log:
        "<logs>/imported/{id}/{network}/{recipe}/seed{seed}.log",
    benchmark:
        "<benchmarks>/imported/{id}/{network}/{recipe}/seed{seed}.tsv"
    conda:
        "../envs/ood.yaml"
    params:
        cfg=WIRE.imported_section,
        code=WIRE.imported_code,
    message:
        "import scores {wildcards.recipe} on {wildcards.id}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.import_scores --config {params.cfg:q} --files {input.files:q} "
        "--stores {input.stores} --scores {output.scores} --metrics {output.metrics} > {log} 2>&1"
