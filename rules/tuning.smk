# Options of scores, chosen without any test image; evaluate.smk computes the scores with them.


rule tune_options:
    input:
        unpack(of(evaluation.sweep_inputs)),
        checkpoint=f"<results>/models/{RUN}.pt",
        store="<results>/data/{id}.train.h5",
        archives=lambda wc: data.decoded_from(PLAN, [(wc.id, "train")]),
    output:
        csv=f"<results>/sweep/{RUN}/{{score}}.csv",
        json=f"<results>/sweep/{RUN}/{{score}}.json",
    log:
        f"<logs>/sweep/{RUN}/{{score}}.log",
    benchmark:
        f"<benchmarks>/sweep/{RUN}/{{score}}.tsv"
    wildcard_constraints:
        score=evaluation.swept(PLAN),
    group:
        grouped("features_{id}_{network}")
    conda:
        ENV
    threads: THREADS
    resources:
        gpu=GPUS,
    params:
        cfg=of(evaluation.sweep_section),
        code=of(evaluation.sweep_code),
        optional=flags("statistics", "train"),
        device=DEVICE,
    message:
        "tune options of {wildcards.score} on {wildcards.id}/{wildcards.network}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.tune_options --config {params.cfg:q} --checkpoint {input.checkpoint} "
        "--store {input.store} {params.optional} --csv {output.csv} --json {output.json} "
        "{params.device} --threads {threads} > {log} 2>&1"


# Options of scores chosen on validation images, or with pseudo-OOD copies of ID train images (`tuning`): the images pass
# through the network once, and each score tries its options on their features.
use rule extract_features as extract_validation_features with:
    input:
        checkpoint=f"<results>/models/{RUN}.pt",
        stores=of(evaluation.feature_stores, group="validation"),
        archives=of(evaluation.feature_archives, group="validation"),
    output:
        sets=f"<results>/features/{RUN}/validation.h5",
    log:
        f"<logs>/features/{RUN}/validation.log",
    benchmark:
        f"<benchmarks>/features/{RUN}/validation.tsv"
    params:
        cfg=of(evaluation.features_section, group="validation"),
        code=of(evaluation.features_code),
        optional=flags("head"),
        device=DEVICE,


rule extract_pseudo_ood:
    input:
        checkpoint=f"<results>/models/{RUN}.pt",
        store="<results>/data/{id}.train.h5",
        archives=lambda wc: data.decoded_from(PLAN, [(wc.id, "train")]),
    output:
        f"<results>/features/{RUN}/pseudo.h5",
    log:
        f"<logs>/features/{RUN}/pseudo.log",
    benchmark:
        f"<benchmarks>/features/{RUN}/pseudo.tsv"
    group:
        grouped("features_{id}_{network}")
    conda:
        ENV
    threads: THREADS
    resources:
        gpu=GPUS,
    params:
        cfg=of(evaluation.pseudo_section),
        code=of(evaluation.pseudo_code),
        device=DEVICE,
    message:
        "features of pseudo-OOD for {wildcards.id}/{wildcards.network}/{wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.extract_pseudo_ood --config {params.cfg:q} "
        "--checkpoint {input.checkpoint} --store {input.store} {params.device} --threads {threads} "
        "--out {output} > {log} 2>&1"


rule choose_options:
    input:
        unpack(of(evaluation.choice_inputs)),
    output:
        csv=f"<results>/sweep/{RUN}/{{score}}.csv",
        json=f"<results>/sweep/{RUN}/{{score}}.json",
    log:
        f"<logs>/sweep/{RUN}/{{score}}.log",
    benchmark:
        f"<benchmarks>/sweep/{RUN}/{{score}}.tsv"
    wildcard_constraints:
        score=evaluation.tuned(PLAN, network=False),
    group:
        grouped("scores_{id}_{network}")
    conda:
        ENV
    params:
        cfg=of(evaluation.choice_section),
        code=of(evaluation.choice_code),
        optional=flags("head", "train", "statistics"),
    message:
        "choose options of {wildcards.score} on {wildcards.id}/{wildcards.network}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.choose_options --config {params.cfg:q} --sets {input.sets} {params.optional} "
        "--csv {output.csv} --json {output.json} > {log} 2>&1"


# The same for a score that runs the network: each batch of images is read once for all options.
rule choose_network_options:
    input:
        unpack(of(evaluation.network_choice_inputs)),
        checkpoint=f"<results>/models/{RUN}.pt",
    output:
        csv=f"<results>/sweep/{RUN}/{{score}}.csv",
        json=f"<results>/sweep/{RUN}/{{score}}.json",
    log:
        f"<logs>/sweep/{RUN}/{{score}}.log",
    benchmark:
        f"<benchmarks>/sweep/{RUN}/{{score}}.tsv"
    wildcard_constraints:
        score=evaluation.tuned(PLAN, network=True),
    group:
        grouped("features_{id}_{network}")
    conda:
        ENV
    threads: THREADS
    resources:
        gpu=GPUS,
    params:
        cfg=of(evaluation.network_choice_section),
        code=of(evaluation.network_choice_code),
        optional=flags("stores", "train_store", "statistics"),
        device=DEVICE,
    message:
        "choose options of {wildcards.score} on {wildcards.id}/{wildcards.network}, seed {wildcards.seed}"
    shell:
        "python -m workflow_scripts.stages.choose_network_options --config {params.cfg:q} "
        "--checkpoint {input.checkpoint} {params.optional} --csv {output.csv} --json {output.json} "
        "{params.device} --threads {threads} > {log} 2>&1"
