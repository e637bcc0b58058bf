r"""Printing a table of :mod:`workflow_scripts.reporting.layout`: Markdown, and LaTeX to be put into a document.

LaTeX is plain ``tabular`` with booktabs rules; a file needs ``\usepackage{booktabs,graphicx}``, and a table wider than
the text is scaled down to it. The page prints the same tables as HTML (``page/table.html.j2``).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from workflow_scripts.reporting.layout import Cell, Column, Table

_SPECIAL = {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#",
            "_": r"\_",
            "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
            "|": r"\textbar{}", '"': r"\textquotedbl{}", "±": r"$\pm$", "−": r"$-$", "–": "--", "×": r"$\times$",
            "³": r"$^3$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\to$", "λ": r"$\lambda$", "≥": r"$\ge$",
            "≤": r"$\le$", "\n": " "}
WIDE = 8
"""Columns of numbers from which a table is scaled to the width of the text."""
LONG = 30
"""Characters beyond which a sentence in a cell is a note below the table."""


def groups(table: Table) -> list[tuple[str, list[Column]]]:
    """Columns of one group together; a column without a group is one of its own."""
    return [(key[0], list(columns)) for key, columns in itertools.groupby(
        table.cells.columns, key=lambda column: (column.group, column.of if column.group else column.title))]


def markdown(table: Table) -> str:
    """The table in Markdown with what stands above and below it; a group of columns is one, since Markdown has none."""
    sides = ["--:" if columns[0].numbers else ":--" for _, columns in groups(table)]
    heads = [_head(table, title, columns) for title, columns in groups(table)]
    rows = []
    for cells in [heads, *(_in_markdown(table, row) for _, row in table.cells.iterrows())]:
        rows.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    title = [f"### {table.title}".replace("|", r"\|"), ""] if table.title else []
    return "\n".join([*title, *itertools.chain(*((text, "") for text in table.before)), rows[0],
                      f"|{'|'.join(sides)}|", *rows[1:], "",
                      *itertools.chain(*((text, "") for text in table.after))])


def _head(table: Table, title: str, columns: Sequence[Column]) -> str:
    """The head of one column of Markdown."""
    if not title:
        return columns[0].title
    return title if table.joined else f"{title}<br>{' / '.join(column.title for column in columns)}"


def _in_markdown(table: Table, row: dict[Column, Cell]) -> Iterator[str]:
    """The cells of a row, those of a group joined."""
    for _, columns in groups(table):
        texts = [f"**{row[c].text}**" if row[c].best else row[c].text for c in columns]
        yield table.joined.format(*texts) if table.joined and len(texts) > 1 and any(texts) else (
            " / ".join(filter(None, texts)))


def escape(text: str) -> str:
    """``text`` so that LaTeX prints it as it stands."""
    return "".join(_SPECIAL.get(character, character) for character in text)


def latex(table: Table) -> str:
    """The table as a floating one in LaTeX."""
    sides = "".join("r" if column.numbers else "l" for column in table.cells)
    top, rules, at = [], [], 1
    for title, columns in groups(table):
        top.append(rf"\multicolumn{{{len(columns)}}}{{c}}{{{escape(title)}}}" if title else "")
        rules += [rf"\cmidrule(lr){{{at}-{at + len(columns) - 1}}}"] if title else []
        at += len(columns)
    above = [" & ".join(top) + r" \\", " ".join(rules)] if rules else []
    notes: dict[str, str] = {}

    def printed(column: Column, cell: Cell) -> str:
        text = cell.text
        if column.style == "prose" and len(text) > LONG:
            text = notes.setdefault(text, f"({len(notes) + 1})")
        return rf"\textbf{{{escape(text)}}}" if cell.best else escape(text)

    body = [list(map(printed, table.cells.columns, row)) for row in table.cells.itertuples(index=False, name=None)]
    said = " ".join([table.caption, *(f"{mark} {text}." for text, mark in notes.items())])
    lines = [rf"\begin{{tabular}}{{{sides}}}", r"\toprule", *above,
             " & ".join(escape(column.title) for column in table.cells) + r" \\", r"\midrule",
             *(" & ".join(row) + r" \\" for row in body), r"\bottomrule", r"\end{tabular}"]
    if sides.count("r") >= WIDE:
        lines = [r"\resizebox{\textwidth}{!}{%", *lines, "}"]
    return "\n".join([r"\begin{table}[tbp]", r"\centering", *lines, rf"\caption{{{escape(said)}}}",
                      r"\end{table}", ""])


def latex_page(title: str, tables: Sequence[Table]) -> str:
    """A file of tables to ``\\input``."""
    return "\n".join([f"% {' '.join(title.split())}", r"% \usepackage{booktabs,graphicx}",
                      *(map(latex, tables) if tables else ["% No run is listed."])])
