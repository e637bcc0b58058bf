# Raw data to stores: one HDF5 file per dataset and split; large sets through an LMDB of their encoded images.


# Downloads stay when an address changes: only what makes it another file (checksum, size) is tracked.
rule fetch_archive:
    output:
        f"{PLAN.config.resources}/archives/{{archive}}",
    log:
        "<logs>/archives/{archive}.log",
    localrule: True
    conda:
        ENV
    params:
        identity=of(data.source_identity),
        row=lambda wc, output: data.source_row(PLAN, wc),
        options=untracked(data.fetch_options(PLAN)),
    message:
        "fetch {wildcards.archive}"
    shell:
        f"python -m workflow_scripts.stages.fetch_archive --config {{params.row:q}} --out {{output{QUOTED}}} "
        "{params.options} > {log} 2>&1"


rule pack_dataset:
    input:
        files=of(data.archives),
    output:
        f"{PLAN.config.resources}/lmdb/{{dataset}}.{{split}}.lmdb",
    log:
        "<logs>/lmdb/{dataset}.{split}.log",
    benchmark:
        "<benchmarks>/lmdb/{dataset}.{split}.tsv"
    group:
        grouped("data")
    conda:
        ENV
    threads: THREADS
    params:
        cfg=of(data.pack_section),
        code=digest("stages.pack_dataset", "data.readers.lmdb_images"),
        optional=flags("files"),
    message:
        "pack {wildcards.dataset} ({wildcards.split})"
    shell:
        "python -m workflow_scripts.stages.pack_dataset --config {params.cfg:q} {params.optional} "
        f"--workers $(({{threads}} - 1)) --out {{output{QUOTED}}} > {{log}} 2>&1"


rule prepare_dataset:
    input:
        files=of(data.prepared_from),
        image_list=of(data.fetched_list),
    output:
        "<results>/data/{dataset}.{split}.h5",
    log:
        "<logs>/data/{dataset}.{split}.log",
    benchmark:
        "<benchmarks>/data/{dataset}.{split}.tsv"
    priority: 100
    group:
        grouped("data")
    conda:
        ENV
    params:
        cfg=of(data.prepare_section),
        code=of(data.prepare_code),
        optional=flags("files"),
        image_list=lambda wc, output: data.list_option(PLAN, wc),
    message:
        "prepare {wildcards.dataset} ({wildcards.split})"
    shell:
        "python -m workflow_scripts.stages.prepare_dataset --config {params.cfg:q} {params.optional} "
        "{params.image_list} --out {output} > {log} 2>&1"


# Sets are prepared and compared before all else, and no metric is computed without. Trainings have no edge to this job:
# a set that is added later would train all networks anew (an `ancient` edge hides other reasons to run, where the job
# before it runs).
rule compare_sets:
    input:
        stores=of(data.compared_stores),
    output:
        "<results>/compared/{id}.json",
    log:
        "<logs>/compared/{id}.log",
    benchmark:
        "<benchmarks>/compared/{id}.tsv"
    priority: 100
    localrule: True
    conda:
        ENV
    params:
        cfg=of(data.compare_section),
        code=digest("stages.compare_sets"),
    message:
        "compare the sets of {wildcards.id}"
    shell:
        "python -m workflow_scripts.stages.compare_sets --config {params.cfg:q} --stores {input.stores} "
        "--out {output} > {log} 2>&1"


# On request only: a store as class folders of PNG images, DFB's form of CIFAR.
rule export_folders:
    input:
        store="<results>/data/{dataset}.{split}.h5",
        archives=lambda wc: data.decoded_from(PLAN, [(wc.dataset, wc.split)]),
    output:
        directory("<results>/folders/{dataset}.{split}"),
    log:
        "<logs>/folders/{dataset}.{split}.log",
    benchmark:
        "<benchmarks>/folders/{dataset}.{split}.tsv"
    group:
        grouped("data")
    conda:
        ENV
    params:
        code=digest("stages.export_folders"),
    message:
        "{wildcards.dataset} ({wildcards.split}) as class folders"
    shell:
        "python -m workflow_scripts.stages.export_folders --store {input.store} --out {output} > {log} 2>&1"


rule datasets:
    input:
        data.stores(PLAN),
        data.lmdbs(PLAN),


# On request only: weights that recipes can do without, each by its own job; the next run has what came.
rule optional_weights:
    input:
        data.optional_weights(PLAN),
