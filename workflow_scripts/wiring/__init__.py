"""From the plan to the workflow: files, inputs, parameters and code digests of jobs.

The rules hold no logic; what they need is a plain function of the plan and a job's wildcards, in the module of their
topic: :mod:`~workflow_scripts.wiring.data`, :mod:`~workflow_scripts.wiring.training`,
:mod:`~workflow_scripts.wiring.evaluation`, :mod:`~workflow_scripts.wiring.pictures`,
:mod:`~workflow_scripts.wiring.reports`. Where files are, :mod:`~workflow_scripts.wiring.paths` alone knows. Sections of
the configuration are passed to jobs as one JSON text each, which Snakemake compares: a job reruns exactly when its
section, its code or an input changed.
"""
