r"""Tables as LaTeX: plain ``tabular`` with booktabs rules, to be put into a document by ``\input``.

A file needs ``\usepackage{booktabs,graphicx}``; a table wider than the text is scaled down to it.
"""

from __future__ import annotations

from collections.abc import Sequence

from workflow_scripts.reporting import comparison, published
from workflow_scripts.reporting.layout import Cell, Table, counts, heading
from workflow_scripts.reporting.statistics import metric

_SPECIAL = {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#",
            "_": r"\_",
            "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
            "|": r"\textbar{}", '"': r"\textquotedbl{}", "±": r"$\pm$", "−": r"$-$", "–": "--", "×": r"$\times$",
            "³": r"$^3$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\to$", "λ": r"$\lambda$", "≥": r"$\ge$",
            "≤": r"$\le$", "\n": " "}
WIDE = 8
"""Columns of numbers from which a table is scaled to the width of the text."""


def escape(text: str) -> str:
    """``text`` so that LaTeX prints it as it stands."""
    return "".join(_SPECIAL.get(character, character) for character in str(text))


def label(name: str) -> str:
    """A metric's heading with its arrow."""
    return escape(f"{metric(name).label} {metric(name).arrow}".strip())


def number(cell: Cell) -> str:
    text = escape(cell.text)
    return rf"\textbf{{{text}}}" if cell.best else text


def environment(caption: str, columns: str, head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """One floating table; ``head`` is whole lines, ``body`` escaped cells."""
    tabular = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *head, r"\midrule",
               *(" & ".join(row) + r" \\" for row in body), r"\bottomrule", r"\end{tabular}"]
    if columns.count("r") >= WIDE:
        tabular = [r"\resizebox{\textwidth}{!}{%", *tabular, "}"]
    return "\n".join([r"\begin{table}[tbp]", r"\centering", *tabular, rf"\caption{{{escape(caption)}}}",
                      r"\end{table}", ""])


def results(table: Table, names: dict[str, str]) -> str:
    """One ID set and network, as in Markdown."""
    def name(key: str) -> str:
        return escape(names.get(key, key))

    top, rules, second, at = ["", ""], [], ["Training", "Score"], 3
    for column in table.columns:
        width = len(column.metrics)
        top.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(heading(column, names))}}}")
        rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
        second += map(label, column.metrics)
        at += width
    head = [" & ".join(top) + r" \\", " ".join(rules), " & ".join(second) + r" \\"]
    body = [[name(row.label), name(row.score), *(number(cell) for cells in row.cells for cell in cells)]
            for row in table.rows]
    caption = (f"{names.get(table.id, table.id)}, {names.get(table.network, table.network)}. Mean ± sample standard "
               f"deviation over seeds. {counts(table, names)} {table.rule}")
    return environment(caption, "ll" + "r" * (at - 3), head, body)


def compared(rows: Sequence[comparison.Compared], names: dict[str, str]) -> str:
    """Corrected against as released."""
    at = comparison.shown(rows)
    metrics = [rows[0].pairs[i].metric for i in at]
    top = ["", "", "", "", "", *(rf"\multicolumn{{3}}{{c}}{{{label(m)}}}" for m in metrics)]
    rules = [rf"\cmidrule(lr){{{6 + 3 * k}-{8 + 3 * k}}}" for k in range(len(at))]
    second = ["Defect", "ID set, network", "Training", "Score", "OOD sets",
              *["corrected", "released", "difference"] * len(at)]
    body = []
    for r in rows:
        cells = [escape(c) for i in at for p in [r.pairs[i]]
                 for c in ((*(cell.text for cell in p.cells), p.text) if p.released else ("", "", ""))]
        body.append([escape(r.defects), escape(f"{names.get(r.id, r.id)}, {names.get(r.network, r.network)}"),
                     *(escape(names.get(x, x)) for x in (r.label, r.score, r.sets)), *cells])
    return environment("Corrected and as released.", "lllll" + "rrr" * len(at),
                       [" & ".join(top) + r" \\", " ".join(rules), " & ".join(second) + r" \\"], body)


def reference(rows: Sequence[published.Number]) -> str:
    """A paper's numbers against ours."""
    return environment(f"Published numbers. {published.summary(rows)}", "llllllrrrll",
                       [" & ".join(map(escape, published.HEADS)) + r" \\"],
                       [[*map(escape, published.cells(r))] for r in rows])


def page(title: str, parts: Sequence[str]) -> str:
    """A file to ``\\input``."""
    said = " ".join(title.split())
    return "\n".join([f"% {said}", r"% \usepackage{booktabs,graphicx}", *(parts or ["% No run is listed."])])
