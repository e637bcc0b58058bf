"""A user's own network: any ``nn.Module`` by import path, or a model of torchvision or timm by name (docs/own.md).

Its penultimate features are what enters the last linear layer, which is found, or named. A module that says so itself
offers ``features(x)`` -> (N, D) and ``head``, an ``nn.Linear`` behind which nothing comes. Feature maps are not known,
so scores that read them cannot be asked for; every other score and every way to train is as for our own networks.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.core import own
from workflow_scripts.core.errors import OODError, nearest
from workflow_scripts.core.specs import ModelSpec
from workflow_scripts.models.base import Classifier

SPEC = ModelSpec(maps=False)
PREFIX = "net."  # of its tensors among those of the wrapper


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
    return made


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
        self.name, self.offers = head_of(self.net, options)
        if self.head.out_features != classes:
            raise OODError(f"own network {options.factory}: its last linear layer '{self.name}' has "
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
        raise OODError(f"own network {self.options.factory}: its feature maps are not known; leave out scores and "
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
        return self.net(self.sized(x))

    def features(self, x: Tensor) -> Tensor:
        """What enters the head, or what the module's own ``features`` gives. (N, 3, H, W) -> (N, D).

        Raises:
            OODError: at the first batch, see :meth:`meet`.
        """
        if not self.met:
            with torch.autocast(x.device.type, enabled=False):
                self.meet(x)
        return self.net.features(self.sized(x)) if self.offers else self._run(x)[0][0]

    def _run(self, x: Tensor) -> tuple[list[Any], list[Any], Any]:
        """What entered the head, what left it, and the module's output."""
        entered, left = [], []

        def note(layer: nn.Module, given: tuple[Any, ...], out: Any) -> None:
            entered.append(given[0])
            left.append(out)

        hook = self.head.register_forward_hook(note)
        try:
            out = self.net(self.sized(x))
        finally:
            hook.remove()
        return entered, left, out

    def meet(self, x: Tensor) -> None:
        """Try the module on some images: features (N, D) and logits (N, K) of which the head is the last step.

        Raises:
            OODError: it fails on them, gives no features, or something stands behind the head.
        """
        what, size = f"own network {self.options.factory}", f"{x.shape[3]}x{x.shape[2]}"
        with own.user_errors(f"{what} on images of {size}"):
            entered, left, out = self._run(x)
        hint = "name the layer by options.head, or offer features(x) -> (N, D) and head"
        if self.offers:
            with own.user_errors(f"{what}, features on images of {size}"):
                entered = [self.net.features(self.sized(x))]
        elif len(entered) != 1:
            raise OODError(f"{what}: its last linear layer '{self.name}' runs {len(entered)} times in a forward pass, "
                           f"expected once; {hint}")
        expected = (len(x), self.head.in_features)
        found = tuple(entered[0].shape) if isinstance(entered[0], Tensor) else type(entered[0]).__name__
        if found != expected:
            place = "features(x) gave" if self.offers else f"what enters '{self.name}' has"
            raise OODError(f"{what}: {place} {found}, expected penultimate features {expected} for {len(x)} images; "
                           f"{'mend it' if self.offers else hint}")
        logits = self.head(entered[0]) if self.offers else left[0]
        found = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        if found != (len(x), self.head.out_features):
            raise OODError(f"{what}: forward gave {found}, expected logits {(len(x), self.head.out_features)}")
        if not (self.training and self.offers) and not torch.allclose(out, logits, rtol=1e-3, atol=1e-4):
            raise OODError(f"{what}: forward does not end with '{self.name}' (a softmax behind it?), so features and "
                           f"head would not give its logits; return logits, or {hint}")
        self.met = True


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
