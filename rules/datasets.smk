# Raw data to stores: one HDF5 file per dataset and split.


# Downloads stay when an address changes: only what makes it another file (checksum, size) is tracked.
rule fetch_archive:
    output:
        f"{PLAN.config.resources}/archives/{{archive}}",
    log:
        "<logs>/archives/{archive}.log",
    localrule: True
    conda:
        "../envs/ood.yaml"
    params:
        identity=WIRE.source_identity,
        row=lambda wc, output: WIRE.source_row(wc),
        options=lambda wc, output: WIRE.fetch_options(),
    message:
        "fetch {wildcards.archive}"
    shell:
        "python -m workflow_scripts.fetch --config {params.row:q} --out {output} {params.options} > {log} 2>&1"


rule prepare_dataset:
    input:
        WIRE.archives,
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
        files=lambda wc, input: f"--files {input}" if input else "",
    message:
        "prepare {wildcards.dataset} ({wildcards.split})"
    shell:
        "python -m workflow_scripts.prepare --config {params.cfg:q} {params.files} --out {output} > {log} 2>&1"


rule datasets:
    input:
        WIRE.stores(),
