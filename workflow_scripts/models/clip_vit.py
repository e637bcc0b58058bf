"""CLIP's image tower with a text head (Radford et al. 2021), by open_clip: frozen blocks and a tail to be trained.

An image becomes (1 + patches) tokens, which pass ``layers`` transformer blocks; the class token of the last one, after
a layer norm and a projection, is its embedding. The first ``layers - trained`` blocks are frozen; their output may
stand in for an image: :meth:`ClipViT.features` takes (N, 3, H, W) or (N, tokens, width). The head holds one unit vector
for each class, the mean of the text embeddings of 18 prompts; its logits are cosines, or linear (`head`). The defaults
are ViT-B/16's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from open_clip import get_tokenizer
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, _build_vision_tower
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import ModelSpec
from workflow_scripts.models.base import WithFrozenBlocks

SPEC = ModelSpec(maps=False)  # a transformer's tokens are no feature maps
TEXTS = 512  # prompts of one pass
KINDS = ("photo", "blurry photo", "black and white photo", "low contrast photo", "high contrast photo", "bad photo",
         "good photo")
SIZES = ("small", "big")


@dataclass(frozen=True)
class Options:
    image: Annotated[int, Gt(0)] = 224
    """Pixels of a side."""
    patch: Annotated[int, Gt(0)] = 16
    """Pixels of a patch's side."""
    width: Annotated[int, Gt(0)] = 768
    """Size of a token; 64 of it for each attention head."""
    layers: Annotated[int, Gt(0)] = 12
    """Transformer blocks."""
    trained: Annotated[int, Ge(0)] = 2
    """Last blocks, which are not frozen."""
    embed: Annotated[int, Gt(0)] = 512
    """Size of the embeddings of images and texts."""
    text_width: Annotated[int, Gt(0)] = 512
    """Size of a text token; 64 of it for each attention head."""
    text_layers: Annotated[int, Gt(0)] = 12
    """Transformer blocks of the text tower."""
    quick_gelu: bool = True
    """x sigmoid(1.702 x), with which OpenAI's weights were trained, in place of GELU."""
    head: Literal["cosine", "linear"] = "cosine"
    """`cosine`: logits are cosines with the class texts, which stay as they are; `linear`: a layer of the embeddings
    that starts as the texts and may be trained."""
    imagenet: tuple[int, ...] = ()
    """Numbers (0..999) of the ImageNet classes whose names the prompts take, in the order of the labels; none: the
    names of the ID set's classes, or all of ImageNet's where it has 1,000."""
    negatives: tuple[str, ...] = ()
    """Words that are no class, for the score `neglabel`; their texts are made with those of the classes."""


def templates() -> list[str]:
    """The 18 prompts: nine with `a`, the same with `the`."""
    return [f"a {kind} of {article} {{}}." for article in ("a", "the") for kind in KINDS] + [
        f"a photo of {article} {size} {{}}." for article in ("a", "the") for size in SIZES]


def vision(options: Options) -> CLIPVisionCfg:
    return CLIPVisionCfg(layers=options.layers, width=options.width, head_width=64, patch_size=options.patch,
                         image_size=options.image)


class CosineHead(nn.Linear):
    """Cosines of features and unit class vectors; the bias is 0 and is there for those who read heads."""

    def __init__(self, width: int, classes: int):
        super().__init__(width, classes)
        nn.init.zeros_(self.bias)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(functional.normalize(x, dim=1), self.weight)


class ClipViT(WithFrozenBlocks):
    """See the module's docstring. ``classes`` is K."""

    def __init__(self, options: Options, classes: int):
        super().__init__()
        if options.trained > options.layers:
            raise OODError(f"clip_vit: trained is {options.trained}, but there are {options.layers} layers")
        self.visual = _build_vision_tower(options.embed, vision(options), options.quick_gelu)
        self.cut = options.layers - options.trained
        self.fc = (CosineHead if options.head == "cosine" else nn.Linear)(options.embed, classes)
        if options.negatives:
            self.register_buffer("negatives", torch.zeros(len(options.negatives), options.embed))
        self.token_shape = ((options.image // options.patch)**2 + 1, options.width)

    def _blocks(self, x: Tensor, part: slice) -> Tensor:
        transformer = self.visual.transformer
        order = not transformer.batch_first
        x = x.transpose(0, 1) if order else x
        for block in transformer.resblocks[part]:
            x = block(x)
        return x.transpose(0, 1) if order else x

    def frozen_blocks(self, x: Tensor) -> Tensor:
        """What the frozen blocks give. (N, 3, H, W) -> (N, tokens, width)."""
        return self._blocks(self.visual._embeds(x.contiguous()), slice(0, self.cut))

    def features(self, x: Tensor) -> Tensor:
        """Embeddings, not normalised. Images (N, 3, H, W) or the frozen blocks' output (N, tokens, width) -> (N, D)."""
        x = self.frozen_blocks(x) if x.dim() == 4 else x
        pooled, _ = self.visual._pool(self._blocks(x, slice(self.cut, None)))
        return pooled @ self.visual.proj

    def places(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings of the images and of their patches, not normalised. (N, 3, H, W) -> (N, D), (N, patches, D).

        A patch's embedding is what the last block gives if each token attends to itself alone (Miyai et al.).
        """
        x = self._blocks(self.visual._embeds(x.contiguous()), slice(0, -1))
        pooled, _ = self.visual._pool(self._blocks(x, slice(-1, None)))
        block, width = self.visual.transformer.resblocks[-1], x.shape[-1]
        weight, bias = block.attn.in_proj_weight[-width:], block.attn.in_proj_bias[-width:]  # those of the values
        tokens = x + block.attn.out_proj(functional.linear(block.ln_1(x), weight, bias))
        tokens = tokens + block.mlp(block.ln_2(tokens))
        return pooled @ self.visual.proj, self.visual.ln_post(tokens[:, 1:]) @ self.visual.proj

    def stages(self, x: Tensor) -> Iterator[Tensor]:
        """None: the tokens are no maps."""
        raise OODError("clip_vit: this network has no feature maps; leave out scores that read them")
        yield

    def maps(self, x: Tensor) -> Tensor:
        """None: see :meth:`stages`."""
        return next(self.stages(x))

    def tail(self) -> list[nn.Parameter]:
        """What is trained: the last blocks, the layer norm behind them and the projection."""
        visual = self.visual
        return [*visual.transformer.resblocks[self.cut:].parameters(), *visual.ln_post.parameters(), visual.proj]


def class_names(options: Options, names: list[str]) -> list[str]:
    """What the prompts call the classes.

    Raises:
        OODError: not one number for each class.
    """
    if options.imagenet:
        if len(options.imagenet) != len(names):
            raise OODError(f"clip_vit: options.imagenet has {len(options.imagenet)} numbers, the ID set {len(names)} "
                           "classes")
        return [IMAGENET_CLASSNAMES[number] for number in options.imagenet]
    return list(IMAGENET_CLASSNAMES) if len(names) == len(IMAGENET_CLASSNAMES) else names


@torch.inference_mode()
def text_head(clip: CLIP, names: list[str]) -> Tensor:
    """Unit vector of each class: embeddings of its prompts, each of length 1, averaged, of length 1. -> (K, D).

    Prompts are cut behind the longest: what follows the end token is not seen by it.
    """
    prompts = [template.format(name) for name in names for template in templates()]
    tokens = get_tokenizer("ViT-B-16")(prompts)
    length = int(tokens.argmax(1).max()) + 1
    tokens = tokens[:, :length].to(clip.positional_embedding.device)
    rows = []
    for part in tokens.split(TEXTS):
        x = clip.token_embedding(part) + clip.positional_embedding[:length]
        x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask[:length, :length]))
        end = x[torch.arange(len(part), device=x.device), part.argmax(1)]
        rows.append(functional.normalize(end @ clip.text_projection, dim=1))
    mean = torch.cat(rows).view(len(names), -1, rows[0].shape[1]).mean(1)
    return functional.normalize(mean, dim=1).clone()


def take_in(options: Options, state: dict[str, Tensor], names: list[str], path: str) -> dict[str, Tensor]:
    """A whole CLIP's tensors (open_clip's names) -> this network's: the image tower, and the head its texts give.

    What is no whole CLIP, a fine-tuned tail, is left as it is.

    Raises:
        OODError: a CLIP of other sizes.
    """
    if "token_embedding.weight" not in state:
        return state
    text = CLIPTextCfg(width=options.text_width, heads=max(1, options.text_width // 64), layers=options.text_layers)
    with torch.device("meta"):
        clip = CLIP(options.embed, vision(options), text, quick_gelu=options.quick_gelu)
    own = clip.state_dict()
    wrong = sorted(own.keys() ^ state.keys()) or sorted(k for k in own if own[k].shape != state[k].shape)
    if wrong:
        found = tuple(state[wrong[0]].shape) if wrong[0] in state else "missing"
        expected = tuple(own[wrong[0]].shape) if wrong[0] in own else "none"
        raise OODError(f"{path}: the file is of another CLIP than the options say: {len(wrong)} tensors differ, first "
                       f"'{wrong[0]}' (expected {expected}, found {found}); take the weights of the architecture that "
                       "the network names")
    clip = CLIP(options.embed, vision(options), text, quick_gelu=options.quick_gelu)
    clip.load_state_dict(state)
    clip.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    head = text_head(clip, class_names(options, names)).cpu()
    visual = {key: value for key, value in state.items() if key.startswith("visual.")}
    words = {"negatives": text_head(clip, list(options.negatives)).cpu()} if options.negatives else {}
    return {**visual, "fc.weight": head, "fc.bias": torch.zeros(len(names)), **words}


def build(options: Options, classes: int) -> ClipViT:
    """The network with open_clip's initialisation and a random head."""
    return ClipViT(options, classes)
