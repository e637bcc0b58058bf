"""Count what networks cost: floating-point operations, parameters and width of features, for ``config/costs.yaml``.

    uv run python -m workflow_scripts.planning.count --configfile config/goe.yaml config/npos.yaml
    uv run python -m workflow_scripts.planning.count --write

Prints a row for each network of these configurations that the table lacks; with --write they are put below its
`networks`. Left out: all configurations of the repository. Nothing is computed: the networks are built without memory
for their weights.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from workflow_scripts.core import plugins
from workflow_scripts.core.digest import ROOT
from workflow_scripts.core.errors import stage
from workflow_scripts.core.files import atomic
from workflow_scripts.planning import networks
from workflow_scripts.planning.setting import read


def count(model: str, options: dict[str, Any], side: int) -> dict[str, Any]:
    """``gflops`` (1e9 operations of one forward pass of one image; a multiply-add is two), ``parameters``,
    ``features`` (penultimate width), and for a network with frozen blocks ``tail`` (1e9 operations behind them)
    and ``tokens`` (values of the frozen blocks' output)."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from workflow_scripts.models.base import WithFrozenBlocks

    with torch.device("meta"), torch.no_grad():
        network = plugins.load("models", model).build(plugins.parse_options("models", model, options, model),
                                                      networks.CLASSES)
        network.eval()

        def gflops(x: torch.Tensor) -> float:
            with FlopCounterMode(display=False) as counter:
                network(x)
            return float(f"{counter.get_total_flops() / 1e9:.4g}")

        x = torch.empty(1, 3, side, side)
        row = {"gflops": gflops(x), "parameters": sum(p.numel() for p in network.parameters()),
               "features": network.head.in_features if isinstance(network.head, torch.nn.Linear) else
               network.features(x).shape[1]}
        if isinstance(network, WithFrozenBlocks):
            row |= {"tail": gflops(torch.empty(1, *network.token_shape)),
                    "tokens": network.token_shape[0] * network.token_shape[1]}
    return row


def lacking(paths: list[Path]) -> list[str]:
    """The rows, as YAML, of the networks of these configurations that the table has not."""
    costs, rows = networks.load(), {}
    for path in paths:
        plan = read(path)
        for run in plan.runs.values():
            options, side = networks.architecture(run), networks.side(plan, run.id)
            kind = json.dumps([run.network.model, options, side])
            if costs.find(plan, run) is None and kind not in rows:
                row = {"model": run.network.model, "options": options, "side": side,
                       **count(run.network.model, options, side)}
                rows[kind] = f"  - {json.dumps(row).replace(chr(34), '')}"
    return list(rows.values())


def shipped() -> list[Path]:
    """The configurations of the repository that stand alone."""
    return [path for path in (ROOT / "config.yaml", *sorted((ROOT / "config").glob("*.yaml")))
            if "\nvariant:" in path.read_text(encoding="utf-8")]


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m workflow_scripts.planning.count", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configfile", type=Path, nargs="+", help="default: all of the repository")
    parser.add_argument("--write", action="store_true", help="add the rows to config/costs.yaml")
    args = parser.parse_args(argv)
    rows = lacking(args.configfile or shipped())
    if rows and args.write:
        text = networks.TABLE.read_text(encoding="utf-8")
        with atomic(networks.TABLE) as partial:  # `networks` is the table's last key
            partial.write_text(text.rstrip("\n") + "\n" + "\n".join(rows) + "\n", encoding="utf-8")
    print("\n".join(rows) or "The table has all of them.")


if __name__ == "__main__":
    main()
