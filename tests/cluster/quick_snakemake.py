"""``snakemake`` that looks after its Slurm jobs every second, for tests; anything else is as always.

The plugin first looks after 40 seconds, then ever more seldom, and waits out its sleep before it ends.
"""

import asyncio
import sys
from pathlib import Path

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor


async def one_second(executor: RemoteExecutor) -> None:
    await asyncio.sleep(1)


if __name__ == "__main__":
    RemoteExecutor.sleep = one_second
    sys.argv[0] = str(Path(sys.executable).with_name("snakemake"))
    main()
