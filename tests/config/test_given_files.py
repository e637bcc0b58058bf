"""Files of --configfile that Snakemake cannot read: one line with file, line and what to do, before Snakemake tries."""

import subprocess
import sys

import pytest

from workflow_scripts.config.given_files import try_given_files
from workflow_scripts.core.digest import ROOT

BAD = {
    "tab": (b"papers:\n\tname: x\n", "bad.yaml, line 2: not valid YAML", "indented by a tab"),
    "latin": (b"# fine\n# caf\xe9\n", "bad.yaml, line 2: not UTF-8", "save the file as UTF-8"),
    "utf-16": ("a: 1\n".encode("utf-16"), "bad.yaml: Snakemake reads UTF-8 alone", "save it as UTF-8"),
    "list": (b"- a\n", "bad.yaml: expected a mapping", "found a list"),
    "text": (b"seeds\n", "bad.yaml: expected a mapping", "found the value 'seeds'"),
    "empty": (b"# nothing\n", "bad.yaml: expected a mapping", "found nothing"),
    "twice": (b"seeds: [0]\nseeds: [1]\n", "bad.yaml: the key 'seeds' is given twice", "in line 1 and in line 2"),
    "colon": (b"title: one: two\n", "bad.yaml, line 1: not valid YAML", ""),
    "date": (b"seeds: 2020-13-45\n", "bad.yaml: Snakemake cannot read it (ValueError: month must be in 1..12", ""),
    "template": (b"__use_yte__: true\nseeds: ?foo\n", "bad.yaml: Snakemake cannot read it (YteError",
                 "leave __use_yte__ out"),
    "deep": (b"[" * 3000, "bad.yaml", ""),
}


def refusal(words, capsys) -> str:
    with pytest.raises(SystemExit) as ended:
        try_given_files(list(map(str, words)))
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("config: ")
    return line


@pytest.mark.parametrize("content, start, end", BAD.values(), ids=BAD)
def test_a_file_that_cannot_be_read(tmp_path, capsys, content, start, end):
    bad, good = tmp_path / "bad.yaml", tmp_path / "good.yaml"
    bad.write_bytes(content)
    good.write_text("seeds: [0]\n")
    message = refusal(["-n", "--configfile", good, bad, "--cores", "1"], capsys)
    assert start in message and end in message


def test_a_file_that_does_not_exist_names_the_nearest_and_the_option_that_takes_all(tmp_path, capsys):
    (tmp_path / "paper.yaml").write_text("seeds: [0]\n")
    message = refusal(["--configfile", tmp_path / "papr.yaml"], capsys)
    assert "did you mean 'paper.yaml'?" in message and "put targets in front of it" in message


@pytest.mark.parametrize("words", [
    [], ["-n", "results"], ["--configfile"], ["--configfile", "{good}"], ["--configfiles={good}", "--config", "a=1"],
    ["--config", "tab=nowhere.yaml", "--configfile", "{good}", "--cores", "all"], ["-C", "a=1", "--", "target"]])
def test_a_line_that_is_fine_or_that_snakemake_refuses_itself(tmp_path, words):
    good = tmp_path / "good.yaml"
    good.write_bytes(b"\xef\xbb\xbfseeds: [0]\r\n")
    try_given_files([word.format(good=good) for word in words])


@pytest.mark.parametrize("word", ["--snakefile={}", "-s{}"])
def test_each_form_of_the_option_for_the_snakefile_finds_the_checkout(tmp_path, word):
    (tmp_path / "mine.yaml").write_bytes(BAD["tab"][0])
    run = subprocess.run([sys.executable, "-m", "snakemake", word.format(ROOT / "Snakefile"), "-n", "--configfile",
                          "mine.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert run.stderr.splitlines()[-1].startswith("config: mine.yaml, line 2: not valid YAML")


@pytest.mark.parametrize("profile", [[], ["--workflow-profile", ROOT / "profiles/slurm"]], ids=["default", "slurm"])
def test_each_profile_tries_the_files_from_any_folder(tmp_path, profile):
    (tmp_path / "mine.yaml").write_bytes(BAD["tab"][0])
    run = subprocess.run([sys.executable, "-m", "snakemake", "-s", ROOT / "Snakefile", "-n", *profile,
                          "--configfile", "mine.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith("config: mine.yaml, line 2: not valid YAML")
    assert "Traceback" not in run.stderr
