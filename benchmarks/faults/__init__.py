"""What interruptions cost: faults made to happen to real jobs, and what is left compared with an undisturbed run.

    uv run snakemake --cores all && uv run python -m benchmarks.faults [--only KIND ...] [--write]

Works in a copy of the finished default run. Prints a row per fault, writes ``faults.json``, and with ``--write`` the
table of ``docs/reliability.md``. Exits with 1 if any fault cost anything: other bits in a result, or a file left over.
"""
