"""How far a run is: per paper what is done, running, failed and waiting, and roughly how long is left.

    uv run python -m workflow_scripts.progress                                       the default run
    uv run python -m workflow_scripts.progress --configfile config/goe.yaml --watch  again every ten seconds

Reads files alone, on any machine that sees the folder, during a run or after it; asks no scheduler. A job is

    done      its outputs are there, and no marker says that they are unfinished
    running   Snakemake's marker of a started job (.snakemake/incomplete) stands, and that run is not over
    stopped   the marker stands, but Snakemake is gone: the same command makes it again
    failed    Snakemake's newest log says so
    waiting   all others

Files that are there count as done, whether or not they are up to date: `snakemake -n` says that. Times come from the
benchmark files of done jobs of the same kind, the median of each, else of all trainings or of all jobs.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import yaml

from workflow_scripts.config.expand import read_plan
from workflow_scripts.config.wiring import Wiring
from workflow_scripts.config.wiring.jobs import Job, jobs
from workflow_scripts.digest import ROOT
from workflow_scripts.errors import OODError, stage
