"""A user's own network: any ``nn.Module`` by import path, or a model of torchvision or timm by name (docs/own.md).

Its penultimate features are what enters the last linear layer, which is found, or named. A module that says so itself
offers ``features(x)`` -> (N, D) and ``head``, an ``nn.Linear`` behind which nothing comes. Feature maps are not known,
so scores that read them cannot be asked for; every other score and every way to train is as for our own networks.

Everything is computed in float32. What a module gives for an image must depend on that image alone; whether it does is
tried with the first images that a stage passes through it, before anything is trained or scored (:meth:`Own.meet`).
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.core import own
from workflow_scripts.core.errors import OODError, nearest
from workflow_scripts.core.specs import ModelSpec
from workflow_scripts.models.base import Classifier, eval_mode

SPEC = ModelSpec(maps=False, draws=("always",))  # nobody knows
PREFIX = "net."  # of its tensors among those of the wrapper
TRIED = 4  # images of a trial
PASSES = 16  # over which a module that draws random numbers must give the same


@dataclass(frozen=True)
class Options:
    factory: str
    """What makes the module: `package.module:function`, `./file.py:function`, `torchvision:name` or `timm:name`."""
    folder: str = ""
    """Folder put on Python's path, e.g. `./` (beside the configuration file); left out: an installed package."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the function; `num_classes` is added where it has such an argument."""
    classes: tuple[str, ...] = ()
    """Names of the classes in the order of the outputs of the weights; left out: the order of the ID set."""
    size: Annotated[int, Gt(0)] | None = None
    """Images are resized to this side (bilinear) before they enter the module; left out: as the dataset's row says."""
    head: str = ""
    """Name of the last linear layer, e.g. `classifier.2`; left out: found."""


def make(options: Options, classes: int) -> nn.Module:
    """The user's module, with fresh weights.

    Raises:
        OODError: it cannot be imported or called, or gives no ``nn.Module``.
    """
    code, name = own.factory(options.factory, options.folder, "own network: factory")
    what = f"own network {options.factory}"
    module = own.load(code, what)
    given = dict(options.arguments)
    with own.user_errors(what):
        if code.module in own.LIBRARIES:
            names = (module.models if code.module == "torchvision" else module).list_models()
            if name not in names:
                raise OODError(f"{what}: {code.module} has no model '{name}'{nearest(name, names)}")
            create = module.models.get_model if code.module == "torchvision" else module.create_model
            made = create(name, **{"num_classes": classes, **given})
        else:
            function = getattr(module, name)
            if "num_classes" in inspect.signature(function).parameters:
                given = {"num_classes": classes, **given}
            made = function(**given)
    if not isinstance(made, nn.Module):
        raise OODError(f"{what}: expected an nn.Module, it gave {type(made).__name__}")
    made = bare(made)
    if isinstance(made, torch.jit.ScriptModule):
        raise OODError(f"{what}: it gave a TorchScript module, whose layers cannot be told apart; return the module "
                       "that it was made from")
    if any(nn.parameter.is_lazy(tensor) for tensor in (*made.parameters(), *made.buffers())):
        raise OODError(f"{what}: it has layers whose shape is not known yet (LazyLinear, ...); write their sizes, or "
                       "pass an image through the module before you return it")
    return made


def bare(module: nn.Module) -> nn.Module:
    """The module itself, without what ``torch.compile``, ``DataParallel`` and the like wrapped around it."""
    wrappers = nn.DataParallel, nn.parallel.DistributedDataParallel
    while True:
        inner = module.module if isinstance(module, wrappers) else getattr(module, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            module._compiled_call_impl = None  # module.compile() sets it
            return module
        module = inner


def logits_of(output: Any) -> Any:
    """The module's output, or what it holds under the name ``logits``, as the networks of transformers do."""
    if isinstance(output, Mapping):
        return output.get("logits", output)
    return output if isinstance(output, Tensor) else getattr(output, "logits", output)


def head_of(net: nn.Module, options: Options) -> tuple[str, bool]:
    """(name of the last linear layer, whether the module offers features and head itself).

    Raises:
        OODError: it has no such layer.
    """
    what, layers = f"own network {options.factory}", dict(net.named_modules())
    if not options.head and callable(getattr(net, "features", None)) and not isinstance(net.features, nn.Module):
        if not isinstance(getattr(net, "head", None), nn.Linear):
            raise OODError(f"{what}: it offers features(x), so expected head, an nn.Linear beside it; found "
                           f"{type(getattr(net, 'head', None)).__name__}; add it, or name the last linear layer by "
                           "options.head")
        return next(name for name, layer in layers.items() if layer is net.head), True
    linear = [name for name, layer in layers.items() if isinstance(layer, nn.Linear)]
    if options.head and options.head not in linear:
        raise OODError(f"{what}: options.head names '{options.head}', which is no linear layer of it"
                       f"{nearest(options.head, linear)}; it has {', '.join(linear) or 'none'}")
    if not linear:
        raise OODError(f"{what}: no linear layer (nn.Linear) to take penultimate features from; end it with one, or "
                       "offer features(x) -> (N, D) and head")
    return options.head or linear[-1], False


class Own(Classifier):
    """A user's module in the form that the stages expect."""

    def __init__(self, options: Options, classes: int):
        super().__init__()
        self.net, self.options, self.met = make(options, classes), options, False
        self.what = f"own network {options.factory}"
        kinds = {str(tensor.dtype).removeprefix("torch.") for tensor in (*self.net.parameters(), *self.net.buffers())
                 if tensor.is_floating_point()} - {"float32"}
        if kinds:
            print(f"{self.what}: its weights are {' and '.join(sorted(kinds))}; float32 is computed with", flush=True)
            self.net.float()
        self.name, self.offers = head_of(self.net, options)
        if self.head.out_features != classes:
            raise OODError(f"{self.what}: its last linear layer '{self.name}' has "
                           f"{self.head.out_features} outputs, expected {classes}, the classes of the ID set; set "
                           "options.arguments, or options.head to the layer that gives the logits")
        if self.head.bias is None:
            self.head.bias = nn.Parameter(torch.zeros(classes))

    @property
    def head(self) -> nn.Linear:
        return self.net.get_submodule(self.name)

    def to(self, *args: Any, memory_format: Any = None, **more: Any) -> Own:
        """As a module's, but for the memory format: a user's ``view`` may need the usual one."""
        return super().to(*args, **more)

    def stages(self, x: Tensor) -> Iterator[Tensor]:
        """None are known."""
        raise OODError(f"{self.what}: its feature maps are not known; leave out scores and "
                       "methods that read them")
        yield

    def maps(self, x: Tensor) -> Tensor:
        """None: see :meth:`stages`."""
        return next(self.stages(x))

    def sized(self, x: Tensor) -> Tensor:
        """The images as the module takes them. (N, 3, H, W) -> (N, 3, size, size)."""
        side = self.options.size
        if side and tuple(x.shape[2:]) != (side, side):
            x = functional.interpolate(x, size=(side, side), mode="bilinear", antialias=True)
        return x.contiguous()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) float32. Raises OODError: at the first batch, see :meth:`meet`."""
        self.try_first(x)
        with own.user_errors(self.what):
            return self._logits(self.net(self.sized(x)), len(x)).float()

    def features(self, x: Tensor) -> Tensor:
        """What enters the head, or what the module's own ``features`` gives. (N, 3, H, W) -> (N, D) float32.

        Raises:
            OODError: at the first batch, see :meth:`meet`.
        """
        self.try_first(x)
        with own.user_errors(self.what):
            h = self.net.features(self.sized(x)) if self.offers else self._run(x)[0][0]
        return h.float()

    def try_first(self, x: Tensor) -> None:
        """:meth:`meet` with the first images that are passed."""
        if not self.met:
            with torch.autocast(x.device.type, enabled=False):
                self.meet(x)

    def _run(self, x: Tensor) -> tuple[list[Any], list[Any], Any]:
        """What entered the head, what left it, and the module's output."""
        entered, left = [], []

        def note(layer: nn.Module, given: tuple[Any, ...], out: Any) -> None:
            entered.append(given[0].clone())  # what comes after may change it in place
            left.append(out.clone())

        hook = self.head.register_forward_hook(note)
        try:
            out = self.net(self.sized(x))
        finally:
            hook.remove()
        return entered, left, out

    def _logits(self, output: Any, images: int) -> Tensor:
        """The logits in the module's output. Raises OODError: there are none, or of another shape or type."""
        logits, expected = logits_of(output), (images, self.head.out_features)
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        if found != expected:
            raise OODError(f"{self.what}: forward gave {found}, expected logits {expected}; return them alone, or "
                           "under the name logits")
        if not logits.is_floating_point():
            raise OODError(f"{self.what}: forward gave {logits.dtype}, expected logits of a floating-point type")
        return logits

    def meet(self, x: Tensor) -> None:
        """Try the module in eval mode on some images: features (N, D) and logits (N, K) of which the head is the last
        step, the same at every pass and the same for an image alone as among others.

        No random number that is drawn afterwards changes.

        Raises:
            OODError: it fails on them, gives no features, something stands behind the head, or what it gives for an
                image depends on more than that image.
        """
        x = x[:TRIED].detach()
        first = x[:1]
        others = torch.cat((x[:TRIED - 2], first.flip(-1), 0.5 * first + 0.1))  # images differ where those of x do not
        with eval_mode(self), torch.random.fork_rng([x.device] if x.is_cuda else []):
            half = self._both(x)[1].dtype != torch.float32
            before = random_state(x.device)
            known = self._outputs(others)
            draws = not all(map(torch.equal, before, random_state(x.device)))
            for _ in range(PASSES if draws else 1):
                gap = difference(self._outputs(others), known, half)
                if gap:
                    raise OODError(f"{self.what}: in eval mode two passes over the same images give other {gap}, so "
                                   f"scores would be drawn anew each time; {self._in_training()}dropout and random "
                                   "numbers are for training alone (functional.dropout(x, p, self.training))")
            alone = [torch.cat(parts) for parts in zip(*(self._outputs(image[None]) for image in others), strict=True)]
            gap = difference(alone, known, half)
            if gap:
                raise OODError(f"{self.what}: in eval mode an image alone has other {gap} than among others, so "
                               f"scores would depend on the batch size; {self._culprit()}")
        self.met = True

    def _both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits as the module gives them. Raises OODError: see :meth:`meet`."""
        size = f"{x.shape[3]}x{x.shape[2]}"
        with own.user_errors(f"{self.what} on images of {size}"):
            entered, left, out = self._run(x)
        hint = "name the layer by options.head, or offer features(x) -> (N, D) and head"
        if self.offers:
            with own.user_errors(f"{self.what}, features on images of {size}"):
                entered = [self.net.features(self.sized(x))]
        elif len(entered) != 1:
            raise OODError(f"{self.what}: its last linear layer '{self.name}' runs {len(entered)} times in a forward "
                           f"pass, expected once; {hint}")
        expected = (len(x), self.head.in_features)
        found = tuple(entered[0].shape) if isinstance(entered[0], Tensor) else type(entered[0]).__name__
        if found != expected:
            place = "features(x) gave" if self.offers else f"what enters '{self.name}' has"
            raise OODError(f"{self.what}: {place} {found}, expected penultimate features {expected} for {len(x)} "
                           f"images; {'mend it' if self.offers else hint}")
        given = self._logits(out, len(x))
        if not self.met and given.dtype != torch.float32:
            print(f"{self.what}: its logits are {given.dtype}; they are taken as float32", flush=True)
        logits = self.head(entered[0].float()) if self.offers else left[0]
        if not torch.isfinite(given).all():
            raise OODError(f"{self.what}: NaN or infinite logits on images of {size}; look at its weights and at what "
                           "range of pixels it expects (normalise)")
        if difference([given.float()], [logits.float()], given.dtype != torch.float32):
            raise OODError(f"{self.what}: forward does not end with '{self.name}' (a softmax behind it?), so features "
                           f"and head would not give its logits; return logits, or {hint}")
        return entered[0], given

    def _outputs(self, x: Tensor) -> list[Tensor]:
        return [tensor.float() for tensor in self._both(x)]

    def _in_training(self) -> str:
        """Names a part that is in training mode in spite of ``eval``, if there is one."""
        part = next((name for name, module in self.net.named_modules() if module.training), None)
        return "" if part is None else f"{(part and f'part {part}') or 'it'} stays in training mode after eval(); "

    def _culprit(self) -> str:
        """What probably makes an image's output depend on others."""
        for name, module in self.net.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
                return (f"batch norm '{name}' has no running statistics (track_running_stats=False) and takes those of "
                        "the batch; give it some, or replace it by group or layer norm")
        return f"{self._in_training()}statistics of a batch are for training alone"


def difference(found: list[Tensor], expected: list[Tensor], half: bool) -> str:
    """Which of features and logits differ by more than rounding, and by how much; an empty text: none.

    Args:
        half: they were computed with fewer digits than float32 has.
    """
    for name, a, b in zip(("features", "logits")[-len(found):], found, expected, strict=True):
        gap, largest = float((a - b).abs().max()), float(b.abs().max())
        if not gap <= (3e-2 if half or a.is_cuda else 2e-3) * largest + 1e-6:
            return f"{name} (by {gap:.2g}, the largest is {largest:.2g})"
    return ""


def random_state(device: torch.device) -> list[Tensor]:
    """States of the generators of torch, NumPy and Python from which a module on ``device`` may draw."""
    _, words, place, *_ = np.random.get_state()  # noqa: NPY002 - what modules do draw from
    others = [torch.from_numpy(np.array([*words, place], np.int64)), torch.tensor(random.getstate()[1])]
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else []), *others]


def take_in(options: Options, state: dict[str, Tensor], names: list[str], path: str) -> dict[str, Tensor]:
    """The tensors of the user's file in the wrapper's names, the head's rows in the order of the ID set's classes.

    Args:
        names: classes of the ID set.

    Raises:
        OODError: ``options.classes`` are not those of the ID set.
    """
    head, _ = head_of(make(options, len(names)), options)
    state = {PREFIX + name: tensor for name, tensor in state.items()}
    weight, bias = (f"{PREFIX}{head}.{part}" for part in ("weight", "bias"))
    if weight in state and bias not in state:
        state[bias] = torch.zeros(len(state[weight]))
    parts = [name for name in state if name.startswith(f"{PREFIX}{head}.") and name not in (weight, bias)]
    if options.classes and parts and list(options.classes) != names:
        raise OODError(f"{path}: options.classes states another order of the outputs than the ID set's, and the head "
                       f"'{head}' has no plain weight to bring into it, but {', '.join(parts[:3])}; undo its "
                       "parametrization (torch.nn.utils.parametrize.remove_parametrizations) before you save it")
    if options.classes and weight in state:
        if sorted(options.classes) != sorted(names):
            wrong = sorted(set(options.classes) ^ set(names)) or ["one that stands twice"]
            raise OODError(f"{path}: options.classes of the network should be the {len(names)} classes of the ID set, "
                           f"in the order of its outputs; they differ in {', '.join(wrong[:5])}")
        order = [options.classes.index(name) for name in names]
        state |= {key: state[key][order] for key in (weight, bias) if len(state[key]) == len(order)}
    return state


def build(options: Options, classes: int) -> Own:
    """The network. Raises OODError when the module is not what it takes."""
    return Own(options, classes)
