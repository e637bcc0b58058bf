"""The jobs of a configuration and their files, from the plan and its wiring alone: no Snakemake, no file is looked at.

What the rules write out in place (``rules/*.smk``) stands here once more; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any

from workflow_scripts.wiring import FIGURES, RELIABILITY, Wiring
from workflow_scripts.work.expand import Trained

TRAINING = ("train_network", "import_weights", "choose_recipe")
ON_GPU = (*TRAINING, "make_masks", "cache_trunk", "features", "measure_distances", "make_panels", "score_network",
          "choose_options")


@dataclass(frozen=True, eq=False)
class Job:
    """One job: its rule (features of all sets: ``features``), files, network, log and benchmark."""

    rule: str
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    log: str
    benchmark: str
    """Its file; downloads, manifests and the page write none."""
    run: Trained | None = None
    sets: tuple[tuple[str, str], ...] = ()
    """(dataset, split) that go through a network, or are prepared."""
    name: str = ""
    """The score, archive or picture."""

    @property
    def trains(self) -> bool:
        return self.rule in TRAINING

    @property
    def on_gpu(self) -> bool:
        return self.rule in ON_GPU


def _flat(files: Any) -> tuple[str, ...]:
    if isinstance(files, str):
        return (files,)
    if isinstance(files, dict):
        files = files.values()
    return tuple(name for entry in files for name in _flat(entry))


class Jobs:
    """All jobs that a configuration has, and which of them files need.

    Args:
        wire: the wiring of the plan.
    """

    def __init__(self, wire: Wiring):
        self.wire, self.plan = wire, wire.plan
        self.by_file: dict[str, Job] = {}

    def page(self) -> list[Job]:
        """The jobs behind the results page, inputs before what reads them."""
        return self.behind([f"{self.wire.root}/report.html"])

    def paper(self, name: str) -> list[Job]:
        """The jobs behind a paper's results."""
        return self.behind(self.wire.results_of(name))

    def behind(self, files: Iterable[str]) -> list[Job]:
        """The jobs that files need, each once, inputs before what reads them."""
        producers = self._producers
        done: dict[Job, None] = {}
        stack = [(producers[name], False) for name in reversed(list(files)) if name in producers]
        seen: set[int] = set()
        while stack:
            job, expanded = stack.pop()
            if expanded:
                done[job] = None
            elif id(job) not in seen:
                seen.add(id(job))
                stack.append((job, True))
                stack += [(producers[name], False) for name in job.inputs if name in producers]
        return list(done)

    def upstream_of_training(self) -> set[str]:
        """Files that some training, import or choice of a network reads, directly or not."""
        trained = [job for job in dict.fromkeys(self._producers.values()) if job.trains]
        return {name for job in self.behind([name for job in trained for name in job.inputs]) for name in job.outputs}

    @cached_property
    def _producers(self) -> dict[str, Job]:
        jobs = [*self._data(), *(job for run in self.plan.runs.values() for job in self._of_run(run)),
                *self._imported(), *self._reports()]
        return {name: job for job in jobs for name in job.outputs}

    def _job(self, rule: str, outputs: Any, inputs: Any, place: str, run: Trained | None = None,
             sets: Iterable[tuple[str, str]] = (), name: str = "") -> Job:
        log, benchmark = (f"{self.wire.root}/{place}" for place in (f"logs/{place}.log", f"benchmarks/{place}.tsv"))
        return Job(rule, _flat(outputs), _flat(inputs), log, benchmark, run, tuple(sets), name)

    def _data(self) -> Iterable[Job]:
        wire, resources = self.wire, self.plan.config.resources
        used = self.plan.used_datasets(whole=True)
        for d, s in used:
            wc = SimpleNamespace(dataset=d, split=s)
            yield self._job("prepare_dataset", wire.store(d, s), wire.prepared_from(wc), f"data/{d}.{s}",
                            sets=[(d, s)])
        archives: dict[str, None] = {}
        for d, s in used:
            archives |= dict.fromkeys(self.plan.archives(d, s))
            if packed := self.plan.packed(d, s):
                wc = SimpleNamespace(dataset=packed, split=s)
                yield self._job("pack_dataset", f"{resources}/lmdb/{packed}.{s}.lmdb", wire.archives(wc),
                                f"lmdb/{packed}.{s}", sets=[(packed, s)])
        for run in self.plan.runs.values():
            name = run.recipe.checkpoint and self.plan.checkpoint_archive(run.recipe)
            archives |= {name: None} if name else {}
        for name in archives:
            yield self._job("fetch_archive", f"{resources}/archives/{name}", (), f"archives/{name}", name=name)

    def _of_run(self, run: Trained) -> Iterable[Job]:
        wire, plan = self.wire, self.plan
        wc = SimpleNamespace(id=run.id, network=run.network.name, recipe=run.path_name, seed=str(run.seed))
        place = f"{run.id}/{run.network.name}/{run.path_name}/seed{run.seed}"
        weights, train = wire.file("models", run, ".pt"), wire.store(run.id, "train")
        known = (run.id, "train")
        if run.recipe.checkpoint is not None:
            yield self._job("import_weights", weights, [train, wire.parent(wc), wire.import_archive(wc)],
                            f"models/{place}", run, [known] if run.recipe.checkpoint.probe else ())
        elif run.among:
            yield self._job("choose_recipe", [weights, wire.file("choice", run, ".csv")], wire.choose_inputs(wc),
                            f"choice/{place}", run, [(plan.held_out(run), "val")])
        else:
            yield self._job("train_network", [weights, wire.file("models", run, ".h5")],
                            [wire.train_store(wc), wire.train_archives(wc), wire.masks(wc), wire.parent(wc),
                             wire.outliers(wc), wire.selection(wc), wire.test_images(wc), wire.tokens(wc)],
                            f"models/{place}", run)
        if run.recipe.masks:
            yield self._job("make_masks", wire.masks(wc), [wire.classifier(wc), train], f"masks/{place}", run, [known])
            yield self._job("make_panels", wire.file("panels", run, ".h5"), wire.panels_inputs(wc),
                            f"panels/{place}", run)
        if selection := wire.selection(wc):
            yield self._job("select_outliers", selection, [wire.outliers(wc), wire.selection_weights(wc)],
                            f"selection/{place}", run)
        if run.parent and wire.outliers(wc):
            yield self._job("measure_distances", wire.file("distances", run, ".h5"),
                            [wire.parent(wc), wire.outliers(wc)], f"distances/{place}", run,
                            [(plan.outliers(run), "train")])
        yield self._job("cache_trunk", wire.file("trunk", run, ".h5"), [train, wire.decoded_from([known]), weights],
                        f"trunk/{place}", run, [known])
        yield from self._evaluation(run, wc, place, weights)

    def _evaluation(self, run: Trained, wc: SimpleNamespace, place: str, weights: str) -> Iterable[Job]:
        wire, plan, known = self.wire, self.plan, (run.id, "train")
        for id, group, sets in plan.feature_groups():
            if id == run.id:
                head = [wire.file("features", run, "/head.h5")] if group != "ood" else []
                yield self._job("features", [*wire.features(run, *sets), *head],
                                [weights, *(wire.store(*pair) for pair in sets), wire.decoded_from(sets)],
                                f"features/{place}/{group}", run, sets)
        yield self._job("precompute_statistics", wire.file("precompute", run, ".h5"),
                        wire.train_features(run), f"precompute/{place}", run)
        for score, entry in run.scores.items():
            wc.score = score
            out, where, needs = wire.file("scores", run, f"/{score}.h5"), f"scores/{place}/{score}", (
                plan.needs(run, score))
            if "network" in needs:
                yield self._job("score_network", out, [weights, wire.network_score_inputs(wc)], where, run,
                                [*plan.sets(run.id)[1:], *([known] if "train_labels" in needs else [])], score)
            elif "scores" in needs:
                yield self._job("fuse_scores", out, wire.fused_inputs(wc), where, run, name=score)
            else:
                yield self._job("score_sets", out, wire.score_inputs(wc), where, run, name=score)
            if entry.choose is not None:
                yield self._job("choose_options", [wire.file("sweep", run, f"/{score}.{end}") for end in (
                    "csv", "json")], [weights, wire.store(*known), wire.decoded_from([known]), wire.sweep_inputs(wc)],
                    f"sweep/{place}/{score}", run, [known], score)
        yield self._job("compute_metrics", wire.file("metrics", run, ".csv"),
                        [wire.metrics_inputs(wc), wire.test_features(run),
                         wire.metrics_statistics(wc)], f"metrics/{place}", run)

    def _imported(self) -> Iterable[Job]:
        for id, network, name, seed in self.plan.imported:
            place = f"imported/{id}/{network}/{name}/seed{seed}"
            wc = SimpleNamespace(id=id, network=network, recipe=name, seed=str(seed))
            yield self._job("import_scores", [f"{self.wire.root}/{place}.{end}" for end in ("h5", "csv")],
                            self.wire.imported_inputs(wc), place, name=name)

    def _reports(self) -> Iterable[Job]:
        wire = self.wire
        for paper in self.plan.papers:
            wc, about = SimpleNamespace(paper=paper), self.plan.about(paper)
            tables = [wire.of_paper(paper, kind) for kind in ("csv", "md", "tex", "published")]
            metrics, scores = (wire.paper_inputs(kind)(wc) for kind in ("metrics", "scores"))
            yield self._job("make_tables", tables, metrics, f"tables/{paper}")
            for rule, names, inputs, place in (
                    ("draw_figures", FIGURES, lambda wc, m=metrics, s=scores: [*m, *s], f"figures/{paper}"),
                    ("draw_reliability", RELIABILITY, wire.reliability_inputs, f"figures/{paper}.reliability")):
                if rule == "draw_figures" or (about and about.reliability):
                    yield self._job(rule, [wire.of_paper(paper, f"{name}.{end}") for end in ("svg", "png")
                                           for name in names], inputs(wc), place)
            for picture in wire.pictures.of(paper):
                wc.picture = picture.file
                yield self._job("draw_picture", [wire.of_paper(paper, f"{picture.file}.{end}") for end in (
                    "svg", "png", "json")], wire.pictures.inputs(wc), f"figures/{paper}/{picture.file}",
                    name=picture.file)
            yield self._job("write_manifest", wire.of_paper(paper, "manifest"),
                            [tables[0], wire.paper_inputs("data")(wc), wire.paper_inputs("models")(wc)],
                            f"manifest/{paper}")
        yield self._job("make_cards", f"{wire.root}/cards.json", [wire.stores(), wire.decoded_from()], "cards")
        yield self._job("make_report", [f"{wire.root}/report.html", *(f"{wire.root}/overview.{end}" for end in (
            "csv", "md", "tex"))], [[wire.results_of(paper) for paper in self.plan.papers], f"{wire.root}/cards.json"],
            "report")
