"""The fast training step of small images: the project's network, method, precision, augmentation and schedule, with the
step itself replayed as a CUDA graph.

Why not the training loop itself: at 32x32 a step of 128 images of ResNet-18 in bfloat16 keeps an H200 busy for 3 ms,
and the loop's own launches make it last 17 ms (benchmarks/gpu_check.py measures both; figures in docs/performance.md).
Here an epoch's images are augmented at once, by the same functions of (seed, epoch, image number); a step then copies
its batch into fixed memory and replays the recorded kernels. Nothing is read back before the end of a training. The
last, smaller batch of an epoch is dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import gpu_project as project
from benchmarks.gpu_rows import within

CHUNK = 8192  # images that are augmented at once
WARM = 5  # steps before the step is recorded


class FastStep:
    """One network in training with cross-entropy and SGD, bfloat16 but for head, loss, weights and optimiser.

    Args:
        network: on its device, float32; changed in place.
        batch: images of a step.
        training: ``momentum``, ``nesterov``, ``weight_decay`` of a recipe.
        graph: record the step (a GPU only).
        compiled: give the network's pass to ``torch.compile``.
        rounded: bfloat16.
    """

    def __init__(self, network: nn.Module, batch: int, training: dict[str, Any], side: int = 32, graph: bool = True,
                 compiled: bool = False, rounded: bool = True):
        self.network = project.channels_last(network).train()
        self.device = next(network.parameters()).device
        self.on_gpu = self.device.type == "cuda"
        self.method = project.method("cross_entropy")
        if rounded:
            project.in_bfloat16(network)
        self.run = compiled_pass(network) if compiled else network
        self.dtype = torch.bfloat16 if rounded else torch.float32
        images = torch.zeros(batch, 3, side, side, dtype=self.dtype, device=self.device)
        self.images = images.to(memory_format=torch.channels_last)
        self.labels = torch.zeros(batch, dtype=torch.int64, device=self.device)
        self.rate = torch.zeros((), device=self.device)
        self.optimiser = torch.optim.SGD(network.parameters(), lr=self.rate if self.on_gpu else 0.0, fused=self.on_gpu,
                                         **training)
        self.rate = self.optimiser.param_groups[0]["lr"] if self.on_gpu else self.rate
        self.total, self.correct = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.wanted = graph and self.on_gpu

    def once(self) -> None:
        """A step on what lies in :attr:`images` and :attr:`labels`."""
        if not self.on_gpu:
            self.optimiser.param_groups[0]["lr"] = float(self.rate)
        loss, logits = self.method.loss(self.run, project.Batch(self.images, self.labels, self.labels, 0, 0, 0))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.total += loss.detach()
        self.correct += (logits.detach().argmax(1) == self.labels).sum()

    def record(self, seconds: float = 120.0) -> None:
        """Warm up and, on a GPU, record the step. Weights, statistics and momenta are as before at the end.

        Raises:
            Late: compiling took longer.
        """
        kept = {key: value.clone() for key, value in self.network.state_dict().items()}
        with within(seconds, "the first steps"):
            if self.wanted:
                stream = torch.cuda.Stream()
                stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(stream):
                    for _ in range(WARM):
                        self.once()
                torch.cuda.current_stream().wait_stream(stream)
                torch.cuda.synchronize()
                graph = torch.cuda.CUDAGraph()
                self.optimiser.zero_grad(set_to_none=True)
                with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                    self.once()
                self.graph = graph
            else:
                for _ in range(WARM if self.on_gpu else 1):
                    self.once()
        self.restart(kept)

    @torch.no_grad()
    def restart(self, state: dict[str, Tensor]) -> None:
        """Another training from these weights, in the same memory."""
        for key, value in self.network.state_dict().items():
            value.copy_(state[key])
        for buffers in self.optimiser.state.values():
            if buffers.get("momentum_buffer") is not None:
                buffers["momentum_buffer"].zero_()
        self.total.zero_()
        self.correct.zero_()

    def step(self, images: Tensor, labels: Tensor, rate: Tensor) -> None:
        """A step on this batch, at this rate (a tensor on the device)."""
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.rate.copy_(rate)
        if self.graph is not None:
            self.graph.replay()
        else:
            self.once()


def compiled_pass(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """The network given to ``torch.compile``; without a GPU it is traced and then run as it is."""
    return torch.compile(network, backend="inductor" if next(network.parameters()).is_cuda else "eager")


def epoch_inputs(pixels: Tensor, labels: Tensor, recipe: project.Recipe, seed: int, epoch: int, dtype: torch.dtype,
                 ) -> tuple[Tensor, Tensor]:
    """All inputs of an epoch in their order, augmented and normalised. -> (N, 3, H, W) channels-last, (N,)."""
    order = project.permutation(seed, epoch, len(labels)).to(labels.device)
    inputs = torch.empty(pixels.shape, dtype=dtype, device=pixels.device)
    for start in range(0, len(order), CHUNK):
        index = order[start:start + CHUNK]
        changed = project.augment(pixels[index], recipe.augment, seed, epoch, index)
        inputs[start:start + CHUNK] = project.normalise(changed, recipe.normalise).permute(0, 2, 3, 1).to(dtype)
    return inputs.permute(0, 3, 1, 2), labels[order]


def rates(recipe: project.Recipe, steps: int, epochs: int, device: torch.device) -> Tensor:
    """Learning rate of each step of a training, on the device."""
    training = recipe.training
    values = [project.learning_rate(training.lr, training.schedule, step, steps, epochs)
              for step in range(steps * epochs)]
    return torch.tensor(values, device=device)


def train(fast: FastStep, pixels: Tensor, labels: Tensor, recipe: project.Recipe, seed: int, epochs: int,
          only: int | None = None, report: Callable[[int], None] = lambda epoch: None) -> float:
    """A training of ``epochs`` epochs, or its first ``only`` ones. -> seconds."""
    batch = len(fast.labels)
    steps = len(labels) // batch
    schedule = rates(recipe, steps, epochs, fast.device)
    wait(fast.device)
    started = time.perf_counter()
    for epoch in range(epochs if only is None else only):
        inputs, order = epoch_inputs(pixels, labels, recipe, seed, epoch, fast.dtype)
        for step in range(steps):
            part = slice(step * batch, (step + 1) * batch)
            fast.step(inputs[part], order[part], schedule[epoch * steps + step])
        report(epoch)
    wait(fast.device)
    return time.perf_counter() - started


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def kernel_seconds(work: Callable[[], Any]) -> float:
    """Seconds in which kernels and copies of ``work`` ran on the GPU; one stream, so they do not overlap."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    kernels = (e for e in profiler.events() if e.device_type == DeviceType.CUDA
               and not getattr(e, "is_user_annotation", False))
    return sum(event.time_range.elapsed_us() for event in kernels) / 1e6
