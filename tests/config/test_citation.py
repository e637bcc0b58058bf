"""What is said of the papers agrees with CITATION.cff, wherever it is said."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml

from tests.checkout import ROOT
from tests.config.test_config import small
from workflow_scripts.config import citation
from workflow_scripts.config.load import load_config
from workflow_scripts.config.models import Paper
from workflow_scripts.core.errors import OODError

WORKS = citation.works()
NOTES = {r["abbreviation"]: r.get("notes", "").partition(";")[0]
         for r in yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]}
CONFIGURATIONS = [ROOT / "config.yaml", *sorted((ROOT / "config").glob("*.yaml"))]


def plain(text: str) -> str:
    """Markdown without its links, on one line."""
    return " ".join(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).split())


def tracked(*suffixes: str) -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True,
                            check=True).stdout.splitlines()
    return [name for name in listed if name.endswith(suffixes) and (ROOT / name).is_file()]


def test_the_five_papers():
    """Authors, venues, numbers and licences as the papers' first pages and the releases have them."""
    assert {key: (work.names, work.venue, work.arxiv, work.code.removeprefix("https://github.com/"), work.licence)
            for key, work in WORKS.items()} == {
        "bgresample": (["Li", "Vasconcelos"], "CVPR 2020", "", "JerryYLi/bg-resample-ood", ""),
        "himplos": (["Sun", "Qiu", "Tan", "Zheng", "Wang"], "2023", "2310.18104", "sunzh18/HIMPLoS", ""),
        "dfb": (["Ding", "Pang"], "MM 2024", "2303.08727", "mala-lab/DFB", "MIT"),
        "npos": (["Tao", "Du", "Zhu", "Li"], "ICLR 2023", "2303.02966", "deeplearning-wisc/npos", ""),
        "goe": (["Koo", "Choi", "Hwang"], "Neurocomputing 2024", "", "jiin99/Generlized-OutlierExposure", "MIT")}
    assert WORKS["dfb"].short == "Ding & Pang, MM 2024, arXiv 2303.08727"


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.name)
def test_a_configuration_that_ships_cites_and_states_no_reference_of_its_own(path):
    papers = yaml.safe_load(path.read_text()).get("papers", [])
    assert not [paper["name"] for paper in papers if isinstance(paper, dict) and "reference" in paper]
    for paper in papers if isinstance(papers, list) else []:
        if (family := paper["name"].partition("_")[0]) in WORKS:
            assert paper["cite"] == family


@pytest.mark.parametrize("name", WORKS)
def test_readme_and_the_papers_page_begin_with_its_reference(name):
    work = WORKS[name]
    repository = work.code.removeprefix("https://github.com/")
    [row] = [line for line in (ROOT / "README.md").read_text().splitlines() if f"](docs/{name}.md)) |" in line]
    assert work.short in plain(row) and f"[{repository}]({work.code}), {work.licence or 'none'} |" in row
    assert not work.arxiv or f"https://arxiv.org/abs/{work.arxiv}" in row
    _, head, *_ = (ROOT / "docs" / f"{name}.md").read_text().split("\n\n")
    assert plain(head).startswith(f"{work.short}: ") and f"released code: {repository}" in plain(head)


def test_authors_beside_a_paper_are_its_authors():
    """In every text: names in a citation are all of them, or the first and et al."""
    names = r"[A-Z][\w-]+"
    cited = re.compile(rf"\(({names}(?:(?:, | & ){names})*)( et al\.)?, ([^()]+)\)")
    found = 0
    for file in tracked(".py", ".md", ".yaml", ".rst", ".cff"):
        text = " ".join((ROOT / file).read_text(encoding="utf-8").split())
        for match in cited.finditer(text):
            people = re.split(r", | & ", match[1])
            for key, work in WORKS.items():
                near = text[max(0, match.start() - 60):match.start()]
                about = work.arxiv and f"arXiv {work.arxiv}" in match[3] or (
                    NOTES[key] and NOTES[key] in near and work.venue in match[3])
                if about and people[0] != NOTES[key]:
                    assert people == (work.names[:1] if match[2] else work.names), (file, match[0])
                    found += 1
    assert found >= 8


def test_numbers_on_arxiv_belong_to_whom_they_are_said_of():
    ours = {work.arxiv: key for key, work in WORKS.items() if work.arxiv}
    for file in tracked(".py", ".md", ".yaml", ".rst"):
        for line in (ROOT / file).read_text(encoding="utf-8").splitlines():
            for number in re.findall(r"arXiv[: ](\d{4}\.\d{5})", line):
                named = [key for key, note in NOTES.items() if note and re.search(rf"\b{re.escape(note)}\b", line)]
                assert len(named) != 1 or ours.get(number) == named[0], (file, line)


def test_a_paper_is_cited_by_a_name_that_exists_or_in_own_words():
    def paper(**keys):
        raw = small()
        raw["papers"][0] |= keys
        return load_config(raw, ROOT).papers[0]

    assert paper(cite="dfb").published == WORKS["dfb"].short
    assert paper(reference="Someone 2020").published == "Someone 2020" and paper().published == ""
    with pytest.raises(OODError, match=r"papers\[0\]\.cite.*'dbf' is not known.*dfb"):
        paper(cite="dbf")
    with pytest.raises(OODError, match="either reference or cite"):
        paper(cite="dfb", reference="Someone 2020")


def test_a_paper_without_cite_can_be_read_again_as_a_manifest_holds_it():
    paper = Paper(name="own", title="My paper")
    assert Paper.model_validate(paper.model_dump()) == paper
