"""Whether a device computes what the CPU computes: scores, training steps, networks, resuming, augmentation.

Each check gives the largest difference that it saw beside what is allowed. What is compared runs in float32 without
TF32 but where bfloat16 is named.
"""

from __future__ import annotations

import copy
import functools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import gpu_project as project
from benchmarks import gpu_step
from benchmarks.gpu_rows import Absent, Rows
from workflow_scripts.core.errors import OODError

CPU = torch.device("cpu")
SCORE, NETWORK_SCORE = 1e-5, 1e-2  # of the scores' standard deviation
FORWARD = {"frozen": 1e-4, "training": 1e-3}  # of the norm of the logits
STEP = 1e-3  # of the norm of what is compared
ROUNDED, ROUNDED_LEAST = 2.0, 0.01  # bfloat16: times what the rounding itself changes on the CPU, or this
RESUMED = 1e-3  # of the norm, where the device's sums have no fixed order
CLASSES = 4
SYNTHESIS = {"start": 0, "queue": 8, "K": 3, "select": 4, "pick": 2, "sample_from": 12, "keep": 3, "hidden": 8}
METHODS: dict[str, dict[str, Any]] = {
    "cross_entropy": {}, "goe": {"filter": "top", "k": 4}, "npos": SYNTHESIS | {"projection": 16}, "resample": {},
    "dense": {},
    "vos": {"start": 0, "queue": 8, "sample_from": 50}, "outlier_exposure": {}, "energy_oe": {}, "background": {},
    "mixup": {"alpha": 1.0}, "npos_clip": SYNTHESIS, "logitnorm": {"temperature": 1.0}, "t2fnorm": {}, "ish": {},
    "mixoe": {}, "rotpred": {},
}
# name -> (full options, options of a test, side of the images); `own` is a user's network, here one of torchvision
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "resnet_cifar": ({}, {"blocks": (1, 1, 1, 1), "width": 8}, 32),
    "wide_resnet": ({"dropout": 0.0}, {"depth": 10, "widen": 1, "width": 4, "dropout": 0.0}, 32),
    "wide_resnet_biased": ({"dropout": 0.0}, {"depth": 10, "widen": 1, "width": 4, "dropout": 0.0}, 32),
    "densenet_bc": ({}, {"depth": 10, "growth": 4}, 32),
    "resnet_gn": ({}, {"blocks": (1, 1), "width": 8}, 32),
    "torchvision_imagenet": ({}, {"architecture": "mobilenet_v2"}, 64),
    "bit": ({}, {}, 64),
    "own": ({"factory": "torchvision:resnet18"}, {"factory": "torchvision:mobilenet_v2"}, 64),
    "mnist_convnet": ({"dropout": 0.0}, {"dropout": 0.0}, 28),
    "clip_vit": ({}, {"image": 32, "patch": 8, "width": 64, "layers": 2, "embed": 16}, 224),
}


def all_checks(rows: Rows, device: torch.device, small: bool) -> None:
    """Every check, the most valuable first."""
    known, batch = made_up(small)
    for name in project.names("scores"):
        rows.run("scores", name, lambda name=name: score(name, known, batch, device, small), 3)
    for name in project.names("methods"):
        for precision in ("float32", "bfloat16"):
            rows.run("one training step", f"{name}, {precision}",
                     lambda name=name, precision=precision: step(name, precision, device, 16 if small else 32), 3)
    for name in project.names("models"):
        rows.run("architectures", name, lambda name=name: architecture(name, device, small), 8)
    for name in ("cross_entropy", "npos", "goe"):
        rows.run("resume", name, lambda name=name: resume(name, device, 16 if small else 32), 4)
    rows.run("fast step", "against the training loop", lambda: fast_step(device, small), 5)
    for name, steps in (("crop and flip", project.CROP_FLIP), ("two-view recipe of NPOS", project.TWO_VIEWS)):
        rows.run("augmentation", name, lambda steps=steps: augmentation(steps, device, small), 3)


def relative(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected, in float64; infinite for what is not finite."""
    found, expected = found.detach().to("cpu", torch.float64), expected.detach().to("cpu", torch.float64)
    if not torch.isfinite(found).all():
        return float("inf")
    return float((found - expected).norm() / expected.norm().clamp_min(1e-30))


# --- scores


def made_up(small: bool) -> tuple[Any, Any]:
    """Evidence and a batch of ReLU features of classes that differ, float32, as features files hold them."""
    rng = np.random.default_rng(0)
    classes, width, train, test = (5, 24, 400, 60) if small else (10, 512, 20_000, 2000)
    centres = rng.gamma(1.0, 1.0, (classes, width))

    def images(centre: np.ndarray) -> np.ndarray:
        return np.maximum(centre + rng.normal(0, 0.7, centre.shape), 0).astype(np.float32)

    labels = rng.permutation(np.arange(train) % classes)
    features = images(centres[labels])
    unlike = rng.gamma(0.7, 1.5, (test // 2, width))
    batch = images(np.concatenate([centres[rng.integers(0, classes, test - test // 2)], unlike]))
    # the discriminant of these classes, scaled to logits of a trained network, with noise: some images are told wrong
    weight = (0.3 * 24 / width * (centres + rng.normal(0, 0.3, centres.shape))).astype(np.float32)
    bias = (-0.15 * 24 / width * (centres**2).sum(1)).astype(np.float32)
    sums, counts = project.class_sums(features, labels, classes)
    e = project.evidence
    known = e.Known(e.Head(weight, bias), e.BatchNorm(rng.gamma(4, 0.2, width), rng.normal(0.5, 0.2, width)),
                    e.Statistics(sums / counts[:, None], counts, sums.sum(0) / counts.sum()), features,
                    features @ weight.T + bias, labels, rng.normal(0, 1, train),
                    e.Batch(logits=rng.normal(0, 1, (300, classes)), background=rng.normal(1, 1, 300)),
                    rng.normal(0, 2, (train, 2)))
    return known, e.Batch(batch, batch @ weight.T + bias, rng.normal(0, 2, test), rng.normal(0, 2, (test, 2)))


def compared(found: np.ndarray, expected: np.ndarray, allowed: float) -> dict[str, Any]:
    spread = float(expected.std()) or 1.0
    gap = float(np.abs(found - expected).max()) / spread
    return {"passed": bool(gap <= allowed), "largest difference": gap, "allowed": allowed, "images": len(expected),
            "unit": "standard deviations of the score"}


def score(name: str, known: Any, batch: Any, device: torch.device, small: bool) -> dict[str, Any]:
    """A score on the device against numpy, or for one that needs the network against torch on the CPU."""
    module, _ = project.score(name)
    if "network" in module.SPEC.needs:
        return network_score(name, device, 16 if small else 32)
    expected = project.scored(name, known, batch)
    return compared(project.scored(name, project.moved(known, device), project.moved(batch, device)), expected, SCORE)


def network_score(name: str, device: torch.device, side: int) -> dict[str, Any]:
    module, options = project.score(name)
    data = images_of(320, CPU, side)
    network = settled(project.model("resnet_cifar", CLASSES, blocks=(1, 1, 1, 1), width=8), side)
    found = []
    for chosen in (CPU, device):
        project.channels_last(network.to(chosen))
        x, labels = data.inputs(data.pixels, project.CIFAR10).to(chosen), data.labels.to(chosen)
        known, state = known_network(network, x, labels), None
        try:
            if hasattr(module, "fit"):
                state = module.fit(options, known, network, zip(x.split(64), labels.split(64), strict=True))
            found.append(module.score(options, known, state, network, x[:64]).detach().cpu().numpy())
        except OODError as error:
            if "clip_vit" not in str(error):
                raise
            raise Absent(str(error)) from None
    return compared(found[1], found[0], NETWORK_SCORE)


def known_network(network: nn.Module, x: Tensor, labels: Tensor) -> Any:
    """Labels of the images, on the CPU, and class means of their features, on the device."""
    e = project.evidence
    with torch.no_grad():
        sums, counts = project.class_sums(network.features(x).cpu().numpy(), labels.cpu().numpy(), CLASSES)
    means = e.Statistics(sums / counts[:, None], counts, sums.sum(0) / counts.sum())
    return e.Known(statistics=project.moved(means, x.device), train_labels=labels.cpu().numpy())


# --- training steps


def images_of(count: int, device: torch.device, side: int = 32, masks: bool = False) -> Any:
    """Images of classes told apart by a bright band, on a device."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % CLASSES
    pixels = torch.randint(0, 120, (count, side, side, 3), dtype=torch.uint8, generator=generator)
    for label in range(CLASSES):
        pixels[labels == label, label * side // CLASSES:(label + 1) * side // CLASSES] += 120
    maps = None
    if masks:
        maps = (labels + 1)[:, None, None].expand(-1, side, side).contiguous()
        maps[:, :side // 3] = 0
        maps = maps.to(device)
    return project.Images(pixels.to(device), labels.to(device), maps)


def recipe_of(name: str, epochs: int = 3, batch: int = 64) -> project.Recipe:
    """A short training by a method."""
    return project.recipe(epochs, batch, 0.05, views=2 if name == "npos" else 1, masks=name == "dense",
                          outliers={"batch_size": 64})


def training_of(name: str, precision: str, device: torch.device, side: int, options: dict[str, Any] | None = None,
                images: int = 128) -> Any:
    """A training of a small network by a method, on the device."""
    torch.manual_seed(0)
    background = name == "dense"
    if background:
        network = project.model("resnet_gn", CLASSES + 1, blocks=(1, 1), width=8)
        nn.init.normal_(network.head.weight, std=0.1)
    else:
        network = project.model("resnet_cifar", CLASSES, blocks=(1, 1, 1, 1), width=8)
    network = network.to(device)
    if name == "npos_clip":  # no CLIP here: its last stage stands for the tail that this method trains
        network.tail = lambda: list(network.layer4.parameters())
    if precision == "bfloat16":
        project.in_bfloat16(network)
    pool = project.Outliers(images_of(256, device, side).pixels.flip(0), 64, "shuffled", 0, device, "made-up outliers")
    method = project.method(name, **(METHODS[name] if options is None else options))
    return project.Training(network, method, images_of(images, device, side, background), recipe_of(name), 0,
                            pool if method.outliers else None)


@functools.cache
def one_step(name: str, precision: str, device: torch.device, side: int) -> dict[str, Tensor]:
    """Loss, change of weights and running statistics, and what the method keeps, after a step, on the CPU."""
    training = training_of(name, precision, device, side)
    before = copied_of(training.network)
    training.method.begin(training.network, training.eval_data())
    training.method.start_epoch(training.network, 0)
    training._step(next(project.batches(training.data, training.recipe, 0, 0, training.rows, training.outliers,
                                        order=training.method.order)))
    after, weights = copied_of(training.network), dict(training.network.named_parameters())
    changes = {"weights": [after[key] - before[key] for key in after if key in weights],
               "statistics": [after[key] - before[key] for key in after if key not in weights],
               "method": list(copied_of(training.method).values())}
    joined = {key: torch.cat([part.flatten() for part in parts]) for key, parts in changes.items() if parts}
    return {"loss": (training.total / training.seen).cpu().double()[None], **joined}


def copied_of(module: nn.Module) -> dict[str, Tensor]:
    """The floating-point tensors of a module, in float64 on the CPU."""
    state = module.state_dict()
    return {key: value.detach().cpu().double() for key, value in state.items() if value.is_floating_point()}


def step(name: str, precision: str, device: torch.device, side: int) -> dict[str, Any]:
    """A step on the device against the CPU, in the same precision."""
    if name not in METHODS:
        raise Absent(f"method {name} has no options here; add them to METHODS in benchmarks/gpu_checks.py")
    note = {"note": "a network's last stage stands for a CLIP's tail"} if name == "npos_clip" else {}
    expected, found = one_step(name, precision, CPU, side), one_step(name, precision, device, side)
    gaps = {key: relative(found[key], expected[key]) for key in expected if expected[key].any()}
    allowed = dict.fromkeys(gaps, STEP)
    if precision == "bfloat16":
        exact = one_step(name, "float32", CPU, side)
        allowed = {key: max(ROUNDED_LEAST, ROUNDED * relative(expected[key], exact[key])) for key in gaps}
    return {"passed": bool(gaps) and all(gaps[key] <= allowed[key] for key in gaps),
            **{f"{key}: difference": gap for key, gap in gaps.items()},
            "allowed": ", ".join(f"{key} {value:.2g}" for key, value in allowed.items()), **note}


# --- architectures


def settled(network: nn.Module, side: int) -> nn.Module:
    """Batch norms that have seen images, the head away from zero; eval mode, no gradients."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        network.head.weight.copy_(0.1 * torch.randn(network.head.weight.shape, generator=generator))
        for _ in range(2):
            network.train()(torch.randn(8, 3, side, side, generator=generator))
    return network.eval().requires_grad_(False)


def architecture(name: str, device: torch.device, small: bool) -> dict[str, Any]:
    """Frozen (evaluation) and training-mode forward passes on the device against the CPU."""
    full, tiny, side = MODELS[name]
    torch.manual_seed(0)
    side = min(side, 32) if small else side
    network = settled(project.model(name, 10, **(tiny if small else full)), side)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    x = torch.randn(8, 3, side, side, generator=torch.Generator().manual_seed(2))
    gaps = {}
    for mode in ("frozen", "training"):
        passes = []
        for chosen in (CPU, device):
            copied = copy.deepcopy(network)
            copied.train(mode == "training")
            if mode == "frozen":
                copied.fold_batchnorms()
            project.channels_last(copied.to(chosen))
            with torch.no_grad():
                passes.append(copied(x.to(chosen, memory_format=torch.channels_last)))
        gaps[mode] = relative(passes[1], passes[0])
    parameters = sum(p.numel() for p in network.parameters()) / 1e6
    return {"passed": all(gaps[mode] <= FORWARD[mode] for mode in gaps),
            **{f"{key}: difference": gap for key, gap in gaps.items()},
            "allowed": "frozen {frozen:.2g}, training {training:.2g}".format(**FORWARD),
            "million parameters": parameters, "side": side}


# --- resuming


@contextmanager
def fixed_order() -> Iterator[None]:
    """Deterministic algorithms where there are any."""
    before, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)


def resume(name: str, device: torch.device, side: int, first: int = 5, more: int = 4) -> dict[str, Any]:
    """N + M steps against N steps, written, read by a new training, M steps; and against N + M steps once more."""
    options = METHODS[name] | ({"start": 1} if name == "npos" else {})

    def state(training: Any) -> Tensor:
        parts = [*training.network.state_dict().values(), *training.method.state_dict().values()]
        return torch.cat([part.detach().cpu().double().flatten() for part in parts])

    def run(steps: int, progress: Any = None, seed: int = 5) -> Any:
        training = training_of(name, "float32", device, side, options, images=192)
        torch.manual_seed(seed)
        training.run(steps, report=lambda line: None, resume=progress)
        return training

    with fixed_order(), tempfile.TemporaryDirectory() as folder:
        whole, again = state(run(first + more)), state(run(first + more))
        run(first + 1, project.Resume(Path(folder) / "out.pt", {"run": 1}, minutes=0))  # writes after every step
        resumed = run(first + more, project.Resume(Path(folder) / "out.pt", {"run": 1}, minutes=60), seed=99)
        found = state(resumed)
    gap = relative(found, whole)
    return {"passed": bool(gap <= RESUMED and resumed.done == first + more), "steps": f"{first} + {more}",
            "equal to the bit": torch.equal(found, whole), "difference": gap, "allowed": RESUMED,
            "two whole runs equal": torch.equal(again, whole), "two whole runs differ by": relative(again, whole)}


def fast_step(device: torch.device, small: bool) -> dict[str, Any]:
    """The recorded step (benchmarks/gpu_step.py) against the training loop: one epoch, float32, the same weights."""
    side, batch = (16, 16) if small else (32, 64)
    data, recipe = images_of(8 * batch, device, side), recipe_of("cross_entropy", 1, batch)

    def network() -> nn.Module:
        torch.manual_seed(0)
        return project.model("resnet_cifar", CLASSES, blocks=(1, 1, 1, 1), width=8).to(device)

    loop = project.Training(network(), project.method("cross_entropy"), data, recipe, 0)
    loop.run(report=lambda line: None)
    fast = gpu_step.FastStep(network(), batch, project.SGD, side, rounded=False)
    fast.record()
    gpu_step.train(fast, data.pixels, data.labels, recipe, 0, 1)
    ends = [torch.cat([part.flatten() for part in copied_of(net).values()]) for net in (fast.network, loop.network)]
    gap = relative(*ends)
    return {"passed": gap <= STEP, "difference": gap, "allowed": STEP, "steps": 8, "recorded": fast.graph is not None}


# --- augmentation


def augmentation(steps: list[project.changes.Step], device: torch.device, small: bool) -> dict[str, Any]:
    """The device's random numbers are the CPU's and uniform; its images are the CPU's but for rounding."""
    count = 256 if small else 2048
    index = torch.arange(count) * 7919
    numbers = project.uniforms(3, 5, index, 8)
    same = torch.equal(project.uniforms(3, 5, index.to(device), 8).cpu(), numbers)
    many = project.uniforms(3, 5, torch.arange(20_000 if small else 1_000_000, device=device), 2)
    counts = torch.histc(many[:, 0], 20, 0, 1)
    expected = len(many) / 20
    chi2 = float(((counts - expected) ** 2 / expected).sum())  # 19 degrees of freedom: above 43.8 once in a thousand
    between = float(torch.corrcoef(many.T)[0, 1].abs()) * len(many) ** 0.5
    data = images_of(count, CPU)
    on_cpu = project.augment(data.pixels, steps, 3, 5, index)
    found = project.augment(data.pixels.to(device), steps, 3, 5, index.to(device)).cpu()
    apart = (found.int() - on_cpu.int()).abs()
    levels = 0 if steps is project.CROP_FLIP else 1
    share = float((apart > levels).float().mean())
    return {"passed": bool(same and chi2 < 43.8 and between < 4 and share <= (0 if not levels else 1e-3)),
            "numbers equal to the bit": same, "chi-square (19)": chi2, "draws' correlation, sigmas": between,
            "largest difference, grey levels": int(apart.max()), "share above": share,
            "allowed": f"share 0 above {levels}" if not levels else f"share 0.001 above {levels}", "images": count}


