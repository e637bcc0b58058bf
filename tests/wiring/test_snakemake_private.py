"""What wiring/snakemake_private.py uses of Snakemake is there and does what it says, in the pinned version."""

from __future__ import annotations

import functools
import inspect
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import yaml
from snakemake.common import get_function_params

from tests.checkout import ROOT, snakemake
from tests.everyday_data import TINY, run, write
from workflow_scripts.planning import dag, setting
from workflow_scripts.wiring import snakemake_private, training

SHOW = """
from workflow_scripts.wiring import snakemake_private
from pathlib import Path
print("found:", snakemake_private.configuration(workflow, config, Path(workflow.basedir, "default.yaml")),
      "typed in:", snakemake_private.typed_in(workflow))
rule all:
    default_target: True
    group: snakemake_private.group(workflow, "pair")
    shell: "true"
onstart:
    print("pending:", [rule for rule, _ in snakemake_private.pending(workflow)])
"""


def said(folder: Path, *words: str) -> str:
    (folder / "Snakefile").write_text(SHOW)
    (folder / "default.yaml").write_text("size: 1")
    done = snakemake(folder, "--cores", "1", *words, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_version_is_the_pinned_one():
    pins = (ROOT / "pyproject.toml").read_text()
    assert f'"snakemake=={metadata.version("snakemake")}"' in pins


def test_a_given_file_stands_alone_and_its_paths_are_beside_it(tmp_path):
    place = tmp_path / "elsewhere"
    place.mkdir()
    (tmp_path / "a.yaml").write_text("colour: blue\nbeside: {a: ./x}")
    (place / "b.yaml").write_text("beside: {b: ./x}")
    assert f"found: {{'size': 1}} typed in: {tmp_path}\n" in said(tmp_path)
    assert "found: {'size': 1, 'seeds': 0.001}" in said(tmp_path, "--config", "seeds=1e-3")
    text = said(tmp_path, "--configfile", "a.yaml", "elsewhere/b.yaml", "--config", "seeds=3", "--directory", "there")
    assert (f"found: {{'colour': 'blue', 'beside': {{'a': '{tmp_path}/x', 'b': '{place}/x'}}, 'seeds': 3}} "
            f"typed in: {tmp_path}\n") in text


def test_jobs_about_to_run_are_known_before_the_first(tmp_path):
    assert "pending: ['all']" in said(tmp_path)


SHORT = """
from workflow_scripts.wiring import snakemake_private
short = snakemake_private.keep_terminal_short(workflow)
rule all:
    default_target: True
    input: "a"
rule make:
    output: "a"
    message: "making a"
    shell: "touch a"
rule fail:
    output: "b"
    shell: "false"
onstart:
    print("short:", short)
    logger.warning("look out")
"""


def test_what_is_said_of_each_job_is_in_the_log_alone_unless_it_is_asked_for(tmp_path):
    (tmp_path / "Snakefile").write_text(SHORT)

    def said(*words: str) -> tuple[str, str]:
        done = snakemake(tmp_path, "--cores", "1", *words, PYTHONPATH=str(ROOT))
        logs = sorted((tmp_path / ".snakemake" / "log").glob("*"))
        return done.stdout, logs[-1].read_text() if logs else ""

    reason = "making a\nReason: Missing output files: a"
    assert reason in said("--dry-run")[0]
    terminal, log = said()
    assert "short: True" in terminal and "look out" in terminal and "Complete log(s)" in terminal
    for told in (reason, "Select jobs to execute", "Job stats:", "Finished jobid", "1 of 2 steps (50%) done"):
        assert told in log and told not in terminal, told
    assert "Error in rule fail" in said("b")[0], "errors are always said"
    (tmp_path / "a").unlink()
    terminal, _ = said("--printshellcmds")
    assert "short: False" in terminal and reason in terminal and "touch a" in terminal


def test_messages_can_go_elsewhere_while_bars_are_drawn(tmp_path):
    (tmp_path / "Snakefile").write_text(SHORT.replace('    logger.warning("look out")', """
    import io, sys
    other = io.StringIO()
    snakemake_private.redirect_terminal(other)
    logger.warning("look out")
    snakemake_private.redirect_terminal(sys.stderr)
    print("elsewhere:", other.getvalue())
"""))
    done = snakemake(tmp_path, "--cores", "1", PYTHONPATH=str(ROOT))
    assert done.returncode == 0 and "elsewhere: look out" in done.stdout.replace("\n", " ").replace("  ", " ")
    assert done.stdout.count("look out") == 1


def test_a_function_keeps_its_parameters():
    def section(wildcards, output):
        return wildcards, output

    same = snakemake_private.remember_signature(section)
    assert list(get_function_params(same)) == ["wildcards", "output"] and same("w", output="o") == ("w", "o")
    for function, expected in ((training.parent, ["wildcards"]), (training.import_file, ["wildcards", "input"])):
        bound = snakemake_private.remember_signature(functools.partial(function, None))  # as `of` in rules/common.smk
        assert list(get_function_params(bound)) == expected


def test_groups_are_those_of_the_profile():
    workflow = SimpleNamespace(group_settings=SimpleNamespace(group_components={}), remote_exec=False,
                               parent_groupids={})
    group = snakemake_private.group(workflow, "scores_{id}")
    assert group({"id": "digits", "seed": "0"}) is None
    workflow.group_settings.group_components["scores_{id}"] = 4
    assert group({"id": "digits", "seed": "0"}) == "scores_digits"
    assert workflow.parent_groupids == {"scores_digits": "scores_{id}"}
    assert list(get_function_params(group)) == list(inspect.signature(lambda wildcards: 0).parameters)


def test_groups_are_made_and_so_many_parts_are_one(tmp_path):
    """Parts of a name with wildcards count by the pattern's number, which Snakemake looks up by the parent's name."""
    (tmp_path / "Snakefile").write_text('''
from workflow_scripts.wiring import snakemake_private
rule all:
    default_target: True
    input: expand("{id}{n}", id=["a", "b"], n=range(4))
rule one:
    output: "{id,[a-b]}{n}"
    group: snakemake_private.group(workflow, "g_{id}")
    shell: "touch {output}"
''')
    done = snakemake(tmp_path, "--dry-run", "--jobs", "9", "--group-components", "g_{id}=2", "--executor", "slurm",
                     PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stdout[-2000:]
    assert done.stdout.count("Group job g_a") == done.stdout.count("Group job g_b") == 2


def test_all_jobs_and_those_that_would_run(tmp_path):
    write(tmp_path / "config.yaml")
    words = setting.words(tmp_path / "config.yaml")
    plan = setting.read(tmp_path / "config.yaml")
    jobs, due = dag.due(plan, words, tmp_path)
    outputs = {name for job in jobs.page() for name in job.outputs}
    assert due.outputs == outputs and due.reasons == ()
    trained = next(job for job in jobs.page() if job.rule == "train_network" and job.run.path_name == "oe")
    assert (trained.kind, trained.on_gpu, trained.benchmark) == (
        "models", True, "results/tiny/benchmarks/models/digits/net/oe/seed0.tsv")
    assert trained.inputs == ("results/tiny/data/digits.train.h5", "results/tiny/data/pool.train.h5")
    assert trained.log == "results/tiny/logs/models/digits/net/oe/seed0.log"
    run(tmp_path, "results/tiny/data/faces.test.h5")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**TINY, "limit": {"images": 40}}))
    plan = setting.read(tmp_path / "config.yaml")
    _, due = dag.due(plan, words, tmp_path, ["results/tiny/data/faces.test.h5"])
    assert due.outputs == {"results/tiny/data/faces.test.h5"}
    (message, reason), = due.reasons
    assert message == "prepare faces (test)" and reason.startswith("Params have changed since last execution")
