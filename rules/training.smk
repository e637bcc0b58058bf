# Stores to trained networks.


rule train_network:
    input:
        data="<results>/data/{id}.train.h5",
        parent=WIRE.parent,
    output:
        "<results>/models/{id}/{network}/{recipe}/seed{seed}.pt",
    log:
        "<logs>/models/{id}/{network}/{recipe}/seed{seed}.log",
    benchmark:
        "<benchmarks>/models/{id}/{network}/{recipe}/seed{seed}.tsv"
    conda:
        "../envs/ood.yaml"
    threads: THREADS
    resources:
        gpu=GPUS,
    params:
        cfg=WIRE.train_section,
        code=WIRE.train_code,
        parent=lambda wc, input: f"--parent {input.parent}" if input.parent else "",
        device=lambda wc, output: DEVICE,
    message:
        "train {wildcards.network} on {wildcards.id}: {wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.train --config {params.cfg:q} --data {input.data} {params.parent} "
        "--seed {wildcards.seed} --device {params.device} --threads {threads} --out {output} > {log} 2>&1"
