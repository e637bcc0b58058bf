# Published numbers computed again (config/published_checks.yaml): a target beside every configuration.
CHECKS = paths.CHECKS


rule check_published:
    input:
        files=of(agreement.fetched),
    output:
        f"{CHECKS}/{{check}}.csv",
    log:
        f"{CHECKS}/logs/{{check}}.log",
    benchmark:
        f"{CHECKS}/benchmarks/{{check}}.tsv"
    conda:
        ENV
    threads: THREADS
    params:
        cfg=of(agreement.check_section),
        code=of(agreement.check_code),
        fetched=of(agreement.fetched_words),
        threads=untracked(THREADS),
    message:
        "compute the published numbers of {wildcards.check} again"
    shell:
        "python -m workflow_scripts.stages.check_published --config {params.cfg:q} {params.fetched} "
        "--threads {params.threads} --out {output} > {log} 2>&1"


rule make_truth_page:
    input:
        lambda wildcards: [f"{CHECKS}/{name}.csv" for name in agreement.checks()],
    output:
        multiext(f"{CHECKS}/published_checks", ".csv", ".md", ".html"),
    log:
        f"{CHECKS}/logs/page.log",
    localrule: True
    conda:
        ENV
    params:
        cfg=lambda wildcards: agreement.page_section(PLAN),
        code=digest("stages.make_truth_page"),
        out=lambda wildcards, output: os.path.splitext(output[0])[0],
    message:
        "published numbers beside ours"
    shell:
        "python -m workflow_scripts.stages.make_truth_page --config {params.cfg:q} --tables {input} "
        "--out {params.out} > {log} 2>&1"


rule published_checks:
    input:
        f"{CHECKS}/published_checks.html",
