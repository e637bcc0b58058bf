# Metrics to tables, figures and the results page.


rule make_tables:
    input:
        paper_metrics,
    output:
        csv=report(
            "<results>/tables/{paper}.csv",
            caption="report/table.rst",
            category="{paper}",
            labels={"result": "table"},
        ),
        md="<results>/tables/{paper}.md",
    log:
        "<logs>/tables/{paper}.log",
    benchmark:
        "<benchmarks>/tables/{paper}.tsv"
    conda:
        "../envs/ood.yaml"
    params:
        cfg=table_section,
        code=digest("tables"),
    message:
        "tables of {wildcards.paper}"
    shell:
        "python -m workflow_scripts.tables --config {params.cfg:q} --csv {output.csv} --md {output.md} > {log} 2>&1"


rule draw_figures:
    input:
        metrics=paper_metrics,
        scores=paper_scores,
    output:
        svg=report(
            expand("<results>/figures/{{paper}}/{figure}.svg", figure=FIGURES),
            caption="report/figure.rst",
            category="{paper}",
            labels={"result": "figure"},
        ),
        png=expand("<results>/figures/{{paper}}/{figure}.png", figure=FIGURES),
    log:
        "<logs>/figures/{paper}.log",
    benchmark:
        "<benchmarks>/figures/{paper}.tsv"
    conda:
        "../envs/ood.yaml"
    params:
        cfg=figure_section,
        code=digest("figures"),
        folder=lambda wc, output: str(Path(output.svg[0]).parent),
    message:
        "figures of {wildcards.paper}"
    shell:
        "python -m workflow_scripts.figures --config {params.cfg:q} --out-dir {params.folder} > {log} 2>&1"


rule write_manifest:
    input:
        table="<results>/tables/{paper}.csv",
        stores=paper_stores,
        checkpoints=paper_checkpoints,
    output:
        "<results>/tables/{paper}.manifest.json",
    log:
        "<logs>/manifest/{paper}.log",
    conda:
        "../envs/ood.yaml"
    params:
        cfg=lambda wc: dumps(PLAN.manifest_section(wc.paper)),
        code=digest("provenance"),
        benchmarks=lambda wc, output: f"{RESULTS}/benchmarks",
    message:
        "manifest of {wildcards.paper}"
    shell:
        "python -m workflow_scripts.provenance --config {params.cfg:q} --stores {input.stores} "
        "--checkpoints {input.checkpoints} --benchmarks {params.benchmarks} --out {output} > {log} 2>&1"


rule make_cards:
    input:
        [store_path(dataset, split) for dataset, split in PLAN.used_datasets()],
    output:
        "<results>/cards.json",
    log:
        "<logs>/cards.log",
    benchmark:
        "<benchmarks>/cards.tsv"
    conda:
        "../envs/ood.yaml"
    params:
        cfg=dumps(PLAN.card_section(store_path), ordered=True),
        code=digest("cards"),
    message:
        "dataset cards"
    shell:
        "python -m workflow_scripts.cards --config {params.cfg:q} --out {output} > {log} 2>&1"


rule make_report:
    input:
        tables=expand("<results>/tables/{paper}.{kind}", paper=PLAN.papers, kind=["csv", "md", "manifest.json"]),
        figures=expand("<results>/figures/{paper}/{figure}.svg", paper=PLAN.papers, figure=FIGURES),
        cards="<results>/cards.json",
    output:
        "<results>/report.html",
    log:
        "<logs>/report.log",
    conda:
        "../envs/ood.yaml"
    params:
        cfg=dumps(PLAN.report_section(paper_path, f"{RESULTS}/cards.json"), ordered=True),
        code=digest("report"),
    message:
        "results page"
    shell:
        "python -m workflow_scripts.report --config {params.cfg:q} --out {output} > {log} 2>&1"


for PAPER in PLAN.papers:

    rule:
        name:
            PAPER
        input:
            [paper_path(PAPER, kind) for kind in ("csv", "md", "manifest", *(f"{name}.svg" for name in FIGURES))],
