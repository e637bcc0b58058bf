# Metrics to tables, figures and the results page.


rule make_tables:
    input:
        metrics=of(reports.metrics),
        intervals="<results>/intervals/{paper}.csv",
        train=of(reports.compared_train_stores),
    output:
        csv=report(
            "<results>/tables/{paper}.csv",
            caption="report/table.rst",
            category="{paper}",
            labels={"result": "table"},
        ),
        md=report(
            "<results>/tables/{paper}.md",
            caption="report/markdown.rst",
            category="{paper}",
            labels={"result": "table to read"},
        ),
        tex=report(
            "<results>/tables/{paper}.tex",
            caption="report/latex.rst",
            category="{paper}",
            labels={"result": "table for LaTeX"},
        ),
        published=report(
            "<results>/published/{paper}.csv",
            caption="report/published.rst",
            category="{paper}",
            labels={"result": "published against ours"},
        ),
    log:
        "<logs>/tables/{paper}.log",
    benchmark:
        "<benchmarks>/tables/{paper}.tsv"
    group:
        grouped("report")
    conda:
        ENV
    params:
        cfg=of(reports.table_section),
        code=digest("stages.make_tables"),
    message:
        "tables of {wildcards.paper}"
    shell:
        "python -m workflow_scripts.stages.make_tables --config {params.cfg:q} --csv {output.csv} --md {output.md} "
        "--tex {output.tex} --published {output.published} --intervals {input.intervals} > {log} 2>&1"


# How far the numbers of a table would move on other images or seeds, and by how much its best scores lead.
rule compare_scores:
    input:
        of(reports.scores),
    output:
        report(
            "<results>/intervals/{paper}.csv",
            caption="report/intervals.rst",
            category="{paper}",
            labels={"result": "paired intervals"},
        ),
    log:
        "<logs>/intervals/{paper}.log",
    benchmark:
        "<benchmarks>/intervals/{paper}.tsv"
    group:
        grouped("report")
    conda:
        ENV
    params:
        cfg=of(reports.intervals_section),
        code=digest("stages.compare_scores"),
    message:
        "paired intervals of {wildcards.paper}"
    shell:
        "python -m workflow_scripts.stages.compare_scores --config {params.cfg:q} --out {output} > {log} 2>&1"


rule draw_figures:
    input:
        metrics=of(reports.metrics),
        scores=of(reports.scores),
    output:
        svg=[
            report(
                f"<results>/figures/{{paper}}/{figure}.svg",
                caption="report/figure.rst",
                category="{paper}",
                labels={"result": figure.replace("_", " ")},
            )
            for figure in FIGURES
        ],
        png=expand("<results>/figures/{{paper}}/{figure}.png", figure=FIGURES),
    log:
        "<logs>/figures/{paper}.log",
    benchmark:
        "<benchmarks>/figures/{paper}.tsv"
    group:
        grouped("report")
    conda:
        ENV
    params:
        cfg=of(reports.figures_section),
        code=digest("stages.draw_figures"),
        folder=folder_of("svg"),
    message:
        "figures of {wildcards.paper}"
    shell:
        "python -m workflow_scripts.stages.draw_figures --config {params.cfg:q} --out-dir {params.folder} > {log} 2>&1"


rule draw_picture:
    input:
        of(pictures.inputs),
    output:
        svg=report(
            "<results>/figures/{paper}/{picture}.svg",
            caption="report/figure.rst",
            category="{paper}",
            labels={"result": "{picture}"},
        ),
        png="<results>/figures/{paper}/{picture}.png",
        json="<results>/figures/{paper}/{picture}.json",
    log:
        "<logs>/figures/{paper}/{picture}.log",
    benchmark:
        "<benchmarks>/figures/{paper}/{picture}.tsv"
    wildcard_constraints:
        picture=pictures.constraint(PLAN),
    group:
        grouped("report")
    conda:
        ENV
    params:
        cfg=of(pictures.section),
        code=of(pictures.code),
        folder=folder_of("svg"),
    message:
        "picture {wildcards.picture} of {wildcards.paper}"
    shell:
        "python -m workflow_scripts.stages.draw_picture --config {params.cfg:q} --out-dir {params.folder} > {log} 2>&1"


rule draw_reliability:
    input:
        of(reports.reliability_inputs),
    output:
        svg=[
            report(
                f"<results>/figures/{{paper}}/{figure}.svg",
                caption="report/figure.rst",
                category="{paper}",
                labels={"result": figure.replace("_", " ")},
            )
            for figure in RELIABILITY
        ],
        png=expand("<results>/figures/{{paper}}/{figure}.png", figure=RELIABILITY),
    log:
        "<logs>/figures/{paper}.reliability.log",
    benchmark:
        "<benchmarks>/figures/{paper}.reliability.tsv"
    group:
        grouped("report")
    conda:
        ENV
    params:
        cfg=of(reports.reliability_section),
        code=digest("stages.draw_reliability"),
        folder=folder_of("svg"),
    message:
        "reliability figures of {wildcards.paper}"
    shell:
        "python -m workflow_scripts.stages.draw_reliability --config {params.cfg:q} "
        "--out-dir {params.folder} > {log} 2>&1"


rule write_manifest:
    input:
        table="<results>/tables/{paper}.csv",
        stores=of(reports.stores),
        checkpoints=of(reports.checkpoints),
    output:
        report(
            "<results>/tables/{paper}.manifest.json",
            caption="report/manifest.rst",
            category="{paper}",
            labels={"result": "provenance"},
        ),
    log:
        "<logs>/manifest/{paper}.log",
    group:
        grouped("report")
    conda:
        ENV
    params:
        cfg=of(reports.manifest_section),
        code=digest("stages.write_manifest"),
        benchmarks=untracked(f"{paths.root(PLAN)}/benchmarks"),
    message:
        "manifest of {wildcards.paper}"
    shell:
        "python -m workflow_scripts.stages.write_manifest --config {params.cfg:q} --stores {input.stores} "
        "--checkpoints {input.checkpoints} --benchmarks {params.benchmarks} --out {output} > {log} 2>&1"


rule make_cards:
    input:
        stores=data.stores(PLAN),
        archives=data.decoded_from(PLAN),
        compared=data.comparisons(PLAN),
    output:
        report(
            "<results>/cards.json",
            caption="report/cards.rst",
            category="all papers",
            labels={"result": "datasets"},
        ),
    log:
        "<logs>/cards.log",
    benchmark:
        "<benchmarks>/cards.tsv"
    group:
        grouped("report")
    conda:
        ENV
    params:
        cfg=reports.cards_section(PLAN),
        code=digest("stages.make_cards"),
    message:
        "dataset cards"
    shell:
        "python -m workflow_scripts.stages.make_cards --config {params.cfg:q} --compared {input.compared} "
        "--out {output} > {log} 2>&1"


rule make_report:
    input:
        papers=[path for paper in PLAN.papers for path in results_of(PLAN, paper)],
        cards="<results>/cards.json",
    output:
        page=report(
            "<results>/report.html",
            caption="report/page.rst",
            category="all papers",
            labels={"result": "results page"},
        ),
        overview=[
            report(
                f"<results>/overview.{kind}",
                caption="report/overview.rst",
                category="all papers",
                labels={"result": f"overview, {kind}"},
            )
            for kind in ("csv", "md", "tex")
        ],
    log:
        "<logs>/report.log",
    group:
        grouped("report")
    conda:
        ENV
    params:
        cfg=reports.report_section(PLAN),
        code=digest("stages.make_report"),
        overview=lambda wc, output: str(Path(output.overview[0]).with_suffix("")),
    message:
        "results page"
    shell:
        "python -m workflow_scripts.stages.make_report --config {params.cfg:q} --out {output.page} "
        "--newest results/report.html --overview {params.overview} > {log} 2>&1"


for NAME, NAMED in targets(PLAN).items():

    rule:
        name:
            NAME
        input:
            NAMED,
