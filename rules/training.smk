# Stores to trained networks.


rule train_network:
    input:
        data="<results>/data/{id}.train.h5",
        archives=lambda wc: WIRE.decoded_from([(wc.id, "train")]),
        parent=WIRE.parent,
        outliers=WIRE.outliers,
    output:
        "<results>/models/{id}/{network}/{recipe}/seed{seed}.pt",
    log:
        "<logs>/models/{id}/{network}/{recipe}/seed{seed}.log",
    benchmark:
        "<benchmarks>/models/{id}/{network}/{recipe}/seed{seed}.tsv"
    wildcard_constraints:
        recipe=WIRE.recipes(imported=False),
    conda:
        "../envs/ood.yaml"
    threads: THREADS
    resources:
        gpu=GPUS,
    params:
        cfg=WIRE.train_section,
        code=WIRE.train_code,
        parent=lambda wc, input: f"--parent {input.parent}" if input.parent else "",
        outliers=lambda wc, input: f"--outliers {input.outliers}" if input.outliers else "",
        device=lambda wc, output: DEVICE,
    message:
        "train {wildcards.network} on {wildcards.id}: {wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.train --config {params.cfg:q} --data {input.data} {params.parent} "
        "{params.outliers} "
        "--seed {wildcards.seed} --device {params.device} --threads {threads} --out {output} > {log} 2>&1"


rule import_weights:
    input:
        data="<results>/data/{id}.train.h5",
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
    params:
        cfg=WIRE.import_section,
        code=WIRE.import_code,
        file=WIRE.import_file,
    message:
        "import weights of {wildcards.network} for {wildcards.id}: {wildcards.recipe}"
    shell:
        "python -m workflow_scripts.import_checkpoint --config {params.cfg:q} --file {params.file:q} "
        "--classes-from {input.data} --out {output} > {log} 2>&1"
