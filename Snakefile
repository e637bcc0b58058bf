# Table of contents. What to run is config.yaml (or --configfile); how, the rules; with what, workflow_scripts.
from snakemake.utils import min_version

min_version("9.27")


include: "rules/common.smk"


pathvars:
    results=paths.root(PLAN),
    logs=f"{paths.root(PLAN)}/logs",
    benchmarks=f"{paths.root(PLAN)}/benchmarks",


include: "rules/datasets.smk"
include: "rules/training.smk"
include: "rules/evaluate.smk"
include: "rules/tuning.smk"
include: "rules/report.smk"
include: "rules/agreement.smk"


rule all:
    default_target: True
    input:
        "<results>/report.html",


onstart:
    check_raw_data()
    show_progress()


onsuccess:
    end_progress()
    print_results(log)


onerror:
    end_progress()
    print_failures(log)
