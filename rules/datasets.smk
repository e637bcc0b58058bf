# Raw data to stores: one HDF5 file per dataset and split.


rule prepare_dataset:
    output:
        "<results>/data/{dataset}.{split}.h5",
    log:
        "<logs>/data/{dataset}.{split}.log",
    benchmark:
        "<benchmarks>/data/{dataset}.{split}.tsv"
    conda:
        "../envs/ood.yaml"
    params:
        cfg=WIRE.prepare_section,
        code=WIRE.prepare_code,
    message:
        "prepare {wildcards.dataset} ({wildcards.split})"
    shell:
        "python -m workflow_scripts.prepare --config {params.cfg:q} --out {output} > {log} 2>&1"


rule datasets:
    input:
        WIRE.stores(),
