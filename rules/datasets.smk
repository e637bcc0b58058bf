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
        cfg=lambda wc: PLAN.prepare_section(wc.dataset, wc.split),
        code=lambda wc: digest("prepare", f"data.readers.{PLAN.datasets[wc.dataset].reader}"),
    message:
        "prepare {wildcards.dataset} ({wildcards.split})"
    shell:
        "python -m workflow_scripts.prepare --config {params.cfg:q} --out {output} > {log} 2>&1"


rule datasets:
    input:
        [f"<results>/data/{dataset}.{split}.h5" for dataset, split in PLAN.used_datasets()],
