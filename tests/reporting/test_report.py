"""The results page: self-contained, well formed, true to the tables, honest about what is missing."""

from __future__ import annotations

import base64
import csv
import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from tests import reporting_data
from tests.reporting.test_published import structure
from workflow_scripts.core.errors import OODError
from workflow_scripts.reporting import intervals, page, palette, published, results
from workflow_scripts.reporting.statistics import Seeds
from workflow_scripts.stages import compare_scores
from workflow_scripts.stages import draw_figures as figures
from workflow_scripts.stages import make_cards as cards
from workflow_scripts.stages import make_report as report
from workflow_scripts.stages import make_tables as tables
from workflow_scripts.stages.sections.make_report import MakeReport

VOID = {"meta", "link", "input", "img", "br", "hr"}
SVG_VOID = {"path", "use", "rect", "line", "circle"}


class Checker(HTMLParser):
    """Collects text per table row, attributes and ids; notes tags that do not nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.wrong, self.attributes, self.ids, self.rows, self.text = [], [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs, closed=False):
        self.attributes += [(tag, key, value) for key, value in attrs]
        self.ids += [value for key, value in attrs if key == "id"]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
        if not closed and tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs, closed=True)

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def build(folder, **options):
    """Run all five stages on made-up results; returns the page and the report's config."""
    config = reporting_data.write_paper(folder / "run", **options)
    (folder / "manifest.json").write_text(json.dumps(reporting_data.MANIFEST))
    tables.main(["--config", json.dumps(config), "--csv", str(folder / "posthoc.csv"), "--md",
                 str(folder / "posthoc.md")])
    figures.main(["--config", json.dumps(config), "--out-dir", str(folder)])
    compare_scores.main(["--config", json.dumps({"paper": "posthoc", "runs": config["runs"], "draws": 200}), "--out",
                         str(folder / "intervals.csv")])
    sets = [{"name": "digits", "path": reporting_data.write_store(folder / "digits.h5"), "role": "ID test"},
            {"name": "gaussian", "path": reporting_data.write_store(folder / "g.h5", "inputs"), "role": "far-OOD"}]
    cards.main(["--config", json.dumps({"sets": sets}), "--out", str(folder / "cards.json")])
    paper = {"name": "posthoc", "title": "The post-hoc scores", "about": "First paragraph.\n\nSecond <b>one</b>.",
             "reference": "Someone 2020, https://example.org/paper", "csv": str(folder / "posthoc.csv"),
             "md": str(folder / "posthoc.md"), "manifest": str(folder / "manifest.json"),
             "intervals": str(folder / "intervals.csv"),
             "figures": [str(folder / name) for name in ("heatmap.svg", "histograms.svg", "roc.svg", "roc.png")]}
    page_config = {"variant": "default", "title": "The default run", "small": True, "papers": [paper],
                   "cards": str(folder / "cards.json"), "notes": {"brick": "Brick has strong edges."},
                   "names": config["names"]}
    return page_config


def render(config):
    return report.render(MakeReport.of(**config))


def rows_of(config):
    return page.context(MakeReport.of(**config))["rows"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    config = build(folder)
    report.main(["--config", json.dumps(config), "--out", str(folder / "report.html")])
    text = (folder / "report.html").read_text(encoding="utf-8")
    return text, Checker(text), config


def test_it_nests_and_ids_are_unique(built):
    _, checked, _ = built
    assert checked.wrong == [] and checked.open == []
    assert len(checked.ids) == len(set(checked.ids))


def test_it_asks_for_nothing_outside_itself(built):
    text, checked, _ = built
    for tag, key, value in checked.attributes:
        if key in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
            assert value.startswith(("data:", "#")) or (tag == "a" and key == "href"), (tag, key, value[:60])
    assert not re.search(r"@import|url\((?!#)", text)
    assert "default-src 'none'" in text  # the browser is told to refuse any request
    assert [v for t, k, v in checked.attributes if t == "a" and v.startswith("http")] == ["https://example.org/paper"]


def test_inner_links_lead_somewhere(built):
    _, checked, _ = built
    links = {v[1:] for t, k, v in checked.attributes if t == "a" and k == "href" and v.startswith("#")}
    assert {"overview", "paper-posthoc", "datasets", "provenance"} <= links <= set(checked.ids)


def test_tables_hold_the_numbers(built):
    _, checked, config = built
    rows = results.read(config["papers"][0]["csv"])
    cells = [" ".join(cell.split()) for row in checked.rows for cell in row]
    for r in rows.itertuples():
        if r.metric in ("auroc", "fpr95"):
            assert f"{100 * r.seeds.mean:.1f} ± {100 * r.seeds.std:.1f}" in cells, r
    overview = next(row for row in checked.rows if row[:2] == ["KNN", "Outlier exposure"])
    assert overview[-5:] == ["2", "near", "Digits 0-7", "ResNet, width 16", "posthoc"]


def test_the_lead_of_the_best_stands_below_the_table(built):
    _, checked, _ = built
    assert "ResNet, width 16: how far the best leads" in checked.words
    row = next(row for row in checked.rows if row[:2] == ["Faces", "AUROC ↑"])
    assert row[2] == "KNN (oe)" and "seed 0: +" in row[4] and "p = " in row[5]


@pytest.mark.parametrize(("over", "seeds"), [("images", 2), ("seeds", 2), ("images", 1), ("seeds", 1)])
def test_bold_follows_the_paired_test_that_is_asked_for(tmp_path, over, seeds):
    config = build(tmp_path, seeds=tuple(range(seeds)))
    config["papers"][0]["over"] = over
    frame = intervals.read(config["papers"][0]["intervals"])
    shown = rows_of(config)
    for metric in ("auroc", "fpr95"):
        for sets, rows in shown.groupby("sets"):
            bold = set(rows.loc[rows[f"best {metric}"], ["training", "score"]].itertuples(index=False, name=None))
            lead = intervals.leads(frame, over).get(("digits", "resnet_small", sets, "average", metric))
            if (over, seeds) != ("seeds", 1):  # else there is no test, and bold is the best number
                assert bold == ({("Outlier exposure", lead[1])} if lead else set())
    assert any(shown["best auroc"]) == ((over, seeds) != ("seeds", 2))  # Student's t of two seeds shows nothing here
    words = Checker(render(config)).words
    assert ("on the same images, for each seed's network" in words) == (over == "images")


def test_best_is_bold_only_where_the_tests_allow(built):
    text, _, _ = built
    body = text[text.index('id="overview-table"'):text.index("</table>")]
    for row in re.findall(r"<tr data-.*?</tr>", body, re.DOTALL):
        assert ("<b>" not in row) or "Outlier exposure" in row
    assert "<b>" in body


def test_below_chance_is_explained_from_the_data(built):
    _, checked, config = built
    rows = [r for r in results.read(config["papers"][0]["csv"]).itertuples()
            if r.metric == "auroc" and r.group != "average" and r.seeds.mean < 0.5]
    assert {r.dataset for r in rows} == {"brick"}
    assert f"{100 * min(r.seeds.mean for r in rows):.1f}" in checked.words
    assert "Below chance" in checked.words and "Brick has strong edges." in checked.words


def test_nothing_below_chance_is_said_too():
    row = ("i", "n", "r", "R", "s", "d", "far", "auroc", Seeds(((0, 0.5),)), 1, 1)
    assert page.below_chance(pd.DataFrame([row], columns=results.COLUMNS), {}, {}) == []


def test_sorting_filtering_conventions_banner_and_provenance(built):
    text, checked, _ = built
    assert text.count("data-sortable") >= 3 and "aria-sort" in text and 'addEventListener("click"' in text
    assert "data-for=\"overview-table\"" in text and "row.hidden" in text
    words = checked.words
    for phrase in ("Small run, not comparable with the paper.", "FPR95 (OOD+)", "ID is positive", "OOD is positive",
                   "sample standard deviation", "Faces (far) 200", "c7a61d0", "Seconds in all",
                   "pretrain digits seed 0", "not measured",
                   "ab" * 32, "Second <b>one</b>.", "network inputs, shown with [−1, 1] mapped"):
        assert phrase in words, phrase
    assert "What is missing" not in words


def test_figures_are_inlined_and_downloads_are_whole(built):
    text, checked, config = built
    assert text.count('class="ood-figure"') == 3 and text.count("data:image/png;base64,") == 3  # roc.png and two cards
    [data] = [v for t, k, v in checked.attributes if t == "a" and v.startswith("data:") and len(v) > 100][:1]
    with open(config["papers"][0]["csv"], "rb") as file:
        assert base64.b64decode(data.partition("base64,")[2]) == file.read()


def test_every_scrolling_region_can_be_reached_by_keyboard(built):
    text, _, _ = built
    assert all("tabindex=\"0\"" in tag and "aria-label" in tag for tag in re.findall(r'<div class="scroll[^>]*>', text))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast_of_the_page(theme):
    css = (report.TEMPLATE / "page.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[theme == "dark"]))
    assert colours["page"] == palette.SURFACES[theme]
    for ink in ("ink", "quiet", "link", "warn"):
        for surface in ("page", "raised"):
            assert palette.contrast(colours[ink], colours[surface]) >= 4.5, (ink, surface)  # WCAG AA
    assert palette.contrast(colours["ink"], colours["warn-page"]) >= 4.5


def test_one_seed_has_no_spread(tmp_path):
    config = build(tmp_path, seeds=(0,), recipes=("pretrain",))
    checked = Checker(render(config))
    cells = [cell for row in checked.rows for cell in row]
    assert any(re.fullmatch(r"\d+\.\d", cell.strip()) for cell in cells) and not any("±" in cell for cell in cells)
    assert "one seed" in checked.words and "1 seed (0)" in checked.words


def test_nan_and_missing_are_said_and_never_nought(tmp_path):
    config = build(tmp_path, seeds=(0,))
    rows = results.read(tmp_path / "posthoc.csv").query("dataset != 'coffee'")
    hole = Seeds(((0, float("nan")),))
    broken = [hole if (r.dataset, r.score) in {("faces", "energy"), ("all", "energy")} else r.seeds
              for r in rows.itertuples()]
    results.write(tmp_path / "posthoc.csv", rows.assign(seeds=broken))
    config["papers"][0]["manifest"] = None
    config["papers"][0]["figures"].append(str(tmp_path / "gone.svg"))
    config["papers"].append({"name": "npos", "title": "NPOS", "csv": None})
    checked = Checker(render(config))
    energy = [row for row in checked.rows if row and row[0].strip() == "Energy"]
    assert all("NaN" in [cell.strip() for cell in row] for row in energy if "all" in row)
    assert not any(re.fullmatch(r"0\.0|nan|None", cell.strip()) for row in energy if "all" in row for cell in row)
    for phrase in ("energy on faces: seed 0 is NaN (fpr95, auroc", "figure gone.svg is not there", "no manifest",
                   "Nothing to show: no table: none of its runs has finished", "No manifest."):
        assert phrase in checked.words, phrase


def test_published_numbers_stand_beside_ours(tmp_path):
    config = build(tmp_path, recipes=("pretrain",))
    ours = Seeds(((0, 0.90), (1, 0.90)))
    head = {"id": "digits", "network": "R18", "training": "CE", "score": "MSP", "sets": "brick", "metric": "auroc"}
    numbers = [("Table 1", ours, 90.4, True, ""), ("Table 2", ours, 88.0, True, ""), ("hearsay", ours, 90.0, False, ""),
            ("Table 3", None, 90.0, True, "another network")]

    def write(rows):
        results.write_csv(tmp_path / "published.csv", published.framed([
            {**head, "source": source, **published.against(seeds, number, "auroc", verified, because)}
            for source, seeds, number, verified, because in rows]))

    config["papers"][0]["published"] = str(tmp_path / "published.csv")
    write(numbers)
    text = render(config)
    found = {row[12]: [cell.strip() for cell in row[6:10]] for row in Checker(text).rows if row[1:2] == ["R18"]}
    assert found == {
        "Table 1": ["90.40", "90.00 ± 0.00", "−0.40", "yes"], "Table 2": ["88.00", "90.00 ± 0.00", "+2.00", "no"],
        "hearsay (not verified)": ["90.00", "90.00 ± 0.00", "–", "not comparable: the source is not verified"],
        "Table 3": ["90.00", "–", "–", "not comparable: another network"]}
    assert "4 published numbers, 2 of them compared, 1 within the tolerance" in text
    assert text.count('within-no"') == 1 and 'download="posthoc.published.csv"' in text
    write([(source, None, number, verified, "small run") for source, _, number, verified, _ in numbers])
    text = render(config)
    assert "4 published numbers; none is compared (small run, not comparable)." in text
    assert "<details><summary>The 4 numbers and their sources</summary>" in text  # folded away


def test_cost_by_stage_counts_each_job_once(tmp_path):
    config = build(tmp_path, seeds=(0,), recipes=("pretrain",))
    jobs = [("models/a", 10.0, 100.0), ("models/b", 30.0, None), ("scores/a", 1.0, 50.0), ("cards", None, None)]
    stages = [dict(zip(("job", "seconds", "peak_mb"), job, strict=True)) for job in jobs]
    manifest = {**reporting_data.MANIFEST, "stages": stages}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    config["papers"].append({**config["papers"][0], "name": "again"})  # another manifest with the same jobs
    rows = {row[0]: [cell.strip() for cell in row[1:]] for row in reversed(Checker(render(config)).rows) if row}
    assert rows["models"] == ["2", "40.0", "30.0", "100"] and rows["scores"] == ["1", "1.0", "1.0", "50"]
    assert rows["cards"] == ["1", "not measured", "not measured", "not measured"]
    assert rows["models/b"] == ["30.0", "not measured"]


def test_overview_files_hold_what_the_page_shows(tmp_path):
    config = build(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    report.main(["--config", str(tmp_path / "config.json"), "--out", str(tmp_path / "r.html"), "--overview",
                 str(tmp_path / "overview")])
    with open(tmp_path / "overview.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    shown = rows_of(config)
    assert [(r["training"], r["score"], r["sets"]) for r in rows] == list(
        shown[["training", "score", "sets"]].itertuples(index=False, name=None))
    assert [float(r["auroc_mean"]) for r in rows] == [seeds.mean for seeds in shown["auroc"]]
    assert (tmp_path / "overview.md").read_text().count("\n| posthoc") == len(rows)
    for headline, expected in (("knn", "knn"), ("", "energy"), ("not among them", "energy")):
        config["papers"][0]["headline"] = headline
        assert set(rows_of(config).query("headline")["score"]) == {expected}
    tex = (tmp_path / "overview.tex").read_text()
    assert structure(tex) and tex.count("posthoc &") == len(rows) and r"\textbf{" in tex


def test_a_page_of_nothing(tmp_path):
    config = {"variant": "v", "title": "Nothing", "papers": []}
    report.main(["--config", json.dumps(config), "--out", str(tmp_path / "r.html")])
    checked = Checker((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "nothing has finished yet" in checked.words and "The dataset cards have not been made." in checked.words
    assert "not comparable" not in checked.words and checked.wrong == []


def test_same_input_same_page(built):
    text, _, config = built
    assert render(config) == text


@pytest.mark.parametrize(("config", "words"), [
    ({"title": "t", "papers": []}, "section make_report.variant: required but missing"),
    ({"variant": "v", "title": "t", "papers": [{"title": "x"}]}, r"section make_report.papers\[0\].name: required"),
])
def test_config_errors_name_the_key(config, words):
    with pytest.raises(OODError, match=words):
        render(config)


def test_broken_files_are_named(tmp_path):
    (tmp_path / "f.svg").write_text("no")
    with pytest.raises(OODError, match=r"f\.svg: expected an SVG"):
        page.figure(tmp_path / "f.svg")
    (tmp_path / "m.json").write_text("{")
    with pytest.raises(OODError, match=r"m\.json: expected JSON"):
        page.read_json(tmp_path / "m.json")
    (tmp_path / "t.csv").write_text("a,b\n")
    with pytest.raises(OODError, match=r"t\.csv: expected the columns"):
        results.read(tmp_path / "t.csv")
