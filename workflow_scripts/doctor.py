"""Is all in order for a run? Software, GPU, disk, storage, raw data, what a stopped run left, and Slurm.

    uv run python -m workflow_scripts.doctor                                             for the default run
    uv run python -m workflow_scripts.doctor --configfile config/paper.yaml --profile profiles/slurm
    uv run python -m workflow_scripts.doctor --checksums --configfile config/cifar.yaml  hash the raw files too

Each problem says what mends it. Exit status: 0 no problem; 1 a problem, or the configuration is not in order.
"""

from __future__ import annotations

import argparse
import sys
from itertools import chain
from pathlib import Path

from workflow_scripts.core.commands import described
from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.planning import dag, health, networks, setting
from workflow_scripts.planning.estimate import Estimator, there
from workflow_scripts.planning.measured import Measured
from workflow_scripts.wiring import paths
from workflow_scripts.wiring.data import raw_splits
from workflow_scripts.work.missing import missing_data


def parser() -> argparse.ArgumentParser:
    words = described(__spec__, __doc__)
    setting.add(words)
    words.add_argument("--profile", "--workflow-profile", type=Path, help="a cluster's, e.g. profiles/slurm")
    words.add_argument("--checksums", action="store_true", help="hash the raw files; minutes for hundreds of GB")
    return words


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    args = parser().parse_args(argv)
    if not args.directory.is_dir():
        raise OODError(f"--directory: there is no folder {args.directory}")
    profile = health.read_profile(args.profile) if args.profile else {}
    plan = setting.read(args.configfile, args.config)
    page = dag.read(plan, setting.words(args.configfile, args.config)).page()
    absent = [job for job in page if there(job, args.directory) is None]
    estimator = Estimator(plan, networks.load(), Measured(args.directory, paths.root(plan)), "gpu")
    sizes = {place: [estimator.bytes(job) for job in absent if job.outputs[0].startswith(paths.root(plan)) != raw]
             for raw, place in enumerate((args.directory, args.directory / plan.config.resources))}
    pairs = raw_splits(plan, ((job.rule, job.wildcards) for job in page))
    missing = missing_data(
        plan, raw_splits(plan, ((job.rule, job.wildcards) for job in absent)),
        [job.run.recipe for job in absent if job.rule == "import_weights"])
    parts = {
        "Software": health.software(plan.config.device),
        "Disk": health.disk({place: (sum(count or 0 for count in found), None in found)
                             for place, found in sizes.items()}),
        "Storage": chain.from_iterable(health.storage(place) for place in dict.fromkeys(
            (args.directory.resolve(), (args.directory / plan.config.resources).resolve()))),
        "Raw data": health.data(plan, pairs, missing, args.checksums),
        "Interrupted runs": health.interrupted(args.directory, paths.root(plan)),
        **({"Slurm": health.slurm(args.profile, profile)} if args.profile else {})}
    problems = 0
    for heading, findings in parts.items():
        print(heading)
        for finding in findings:
            print(f"  {str(finding).replace(chr(10), chr(10) + '  ')}", flush=True)
            problems += finding.kind == "problem"
    print(f"{problems} problem{'s' * (problems != 1)}" if problems else "All is in order.")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
