"""A network that learns: what of it is frozen, how fast the rest moves, and what a step is.

The backbone is a chain of links. Those from the input on that a recipe freezes are the trunk: it
keeps no gradients, may compute in bfloat16, and what it says of a picture can be kept. The other
links and the head learn, earlier links more slowly.
"""

# B batch, H W pixels, h w cells of a map, F features, K outputs, C classes of ImageNet

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import timm
import torch
from timm.optim import param_groups_layer_decay
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from services.shared import model, network, starter
from services.shared.errors import MalformedRequest
from services.shared.model import Architecture, Preprocessing
from services.shared.network import Network
from services.shared.vocabulary import Vocabulary
from services.trainer.batches import Batch
from services.trainer.recipe import Mode, Recipe
from services.trainer.world import World

LEAST_COUNT = 0.5  # of an emoji without a picture, where its logarithm is wanted
CLASSIFIER = ("head.classifier.weight", "head.classifier.bias")


class Arithmetic(NamedTuple):
    """What a forward pass computes with; chosen by `probe.py`, once for a run."""

    trunk_bfloat16: bool = False
    tail_bfloat16: bool = False
    channels_last: bool = True


EXACT = Arithmetic()


class Learner:
    """A network with all that makes it better, step by step.

    Equal recipes, vocabularies and batches make equal bits, on the same machine and threads.

    Raises:
        MalformedRequest: the recipe's backbone or weights cannot be used.
        BadModel: the model to go on from is damaged.
    """

    def __init__(
        self, recipe: Recipe, vocabulary: Vocabulary, arithmetic: Arithmetic = EXACT
    ) -> None:
        self.recipe, self.vocabulary, self.arithmetic = recipe, vocabulary, arithmetic
        torch.manual_seed(recipe.seed)
        self.preprocessing = preprocessing(recipe)
        self.architecture = architecture(recipe, self.preprocessing)
        self.net = Network(self.architecture, self.preprocessing, len(vocabulary))
        _begin(self.net, recipe, vocabulary)
        form = torch.channels_last if arithmetic.channels_last else torch.contiguous_format
        self.net.eval().to(device(), memory_format=form)
        self._freeze()
        self._prior_K = self._log_prior()
        self._parameters = [p for p in self.net.parameters() if p.requires_grad]
        self._average = [p.detach().clone() for p in self._parameters]
        self._optimizer = torch.optim.AdamW(self._groups(), lr=recipe.learning_rate, fused=True)
        self._schedule = CosineLRScheduler(
            self._optimizer,
            t_initial=recipe.steps,
            warmup_t=round(recipe.warmup * recipe.steps),
            warmup_lr_init=0.0,
            t_in_epochs=False,
            cycle_limit=1,
        )

    # -- the parts --------------------------------------------------------------------------------

    def _freeze(self) -> None:
        links = chain(self.net.backbone, self.recipe.size_px)
        share = {Mode.FULL: 0.0, Mode.PARTIAL: self.recipe.frozen, Mode.HEAD: 1.0}
        cut = round(share[self.recipe.mode] * len(links))
        self._trunk, self._tail = links[:cut], links[cut:]
        for link in self._trunk:
            link.requires_grad_(False)
        self._followed: list[Tensor] = []  # what batch norms know of the data
        if self.recipe.adapt_norms:
            for part in (part for link in self._tail for part in link.modules()):
                if isinstance(part, nn.modules.batchnorm._BatchNorm):
                    part.train()
                    self._followed += [part.running_mean, part.running_var]

    def _groups(self) -> list[dict[str, object]]:
        decay = {"weight_decay": self.recipe.weight_decay}
        groups: list[dict[str, object]] = [
            {"params": [self.net.head.weight], "lr_scale": 1.0, **decay},
            {"params": [self.net.head.bias], "lr_scale": 1.0, "weight_decay": 0.0},
        ]
        if any(p.requires_grad for p in self.net.backbone.parameters()):
            layers = param_groups_layer_decay(
                self.net.backbone, layer_decay=self.recipe.layer_decay, **decay
            )
            for group in layers:
                group["lr_scale"] *= self.recipe.layer_decay
                groups.append(group)
        return groups

    def _log_prior(self) -> Tensor:
        counts_K = np.maximum(np.array(self.vocabulary.counts, np.float64), LEAST_COUNT)
        return torch.from_numpy(np.log(counts_K / counts_K.sum())).float().to(device())

    @torch.no_grad()
    def begin(self, weight_KF: Tensor, bias_K: Tensor) -> None:
        """Gives the head other rows to begin with."""
        self.net.head.weight.copy_(weight_KF)
        self.net.head.bias.copy_(bias_K)
        self._average = [p.detach().clone() for p in self._parameters]

    # -- forward ----------------------------------------------------------------------------------

    @torch.no_grad()
    def trunk(self, x_BHWC: Tensor) -> Tensor:
        """What the frozen part says of pictures: a map (B, f, h, w); pooled where all is frozen."""
        x = (x_BHWC.to(device()).float() / 255 - self.net.mean_C) / self.net.std_C
        x = x.permute(0, 3, 1, 2)
        with _cast(self.arithmetic.trunk_bfloat16 and bool(self._trunk)):
            for link in self._trunk:
                x = link(x)
        return x.float() if self._tail else x.float().mean((2, 3))

    def trunk_shape(self) -> tuple[int, ...]:
        """Of what the trunk says of one picture."""
        edge = self.recipe.size_px
        said = self.trunk(torch.zeros(1, edge, edge, 3, dtype=torch.uint8))
        return tuple(said.shape[1:])

    def _logits(self, x: Tensor) -> Tensor:
        """From what the trunk said."""
        x = x.to(device()).float()
        if self._tail:
            with _cast(self.arithmetic.tail_bfloat16):
                for link in self._tail:
                    x = link(x)
            x = x.float().mean((2, 3))
        logits_BK: Tensor = self.net.head(x)
        return logits_BK

    # -- learning ---------------------------------------------------------------------------------

    def step(self, number: int, batch: Batch, world: World) -> float:
        """Learns from this process's share of a batch, as step `number`; returns the mean loss."""
        self._schedule.step_update(number)
        torch.manual_seed(self.recipe.seed + number)  # of drop-out, so that a resumed run agrees
        sums = torch.zeros(2)  # of losses, of images
        for x, y_BK in _pieces(batch, self.recipe.at_once):
            loss = self._loss(x, y_BK)
            loss.backward()
            sums += torch.tensor([loss.item(), len(y_BK)])
        gradients = [_gradient(p) for p in self._parameters]
        world.add([*gradients, sums])
        torch._foreach_div_(gradients, float(sums[1].clamp(min=1)))
        self._optimizer.step()
        self._optimizer.zero_grad()
        decay = min(
            self.recipe.ema, (1 + number) / (10 + number)
        )  # the first weights soon count less
        torch._foreach_lerp_(self._average, [p.detach() for p in self._parameters], 1 - decay)
        if self._followed and world.size > 1:  # each has followed its own share
            world.add(self._followed)
            torch._foreach_div_(self._followed, world.size)
        return float(sums[0] / sums[1].clamp(min=1))

    def _loss(self, x: Tensor, y_BK: Tensor) -> Tensor:
        logits_BK = self._logits(self.trunk(x) if x.dtype == torch.uint8 else x)
        prior_K, smoothing = (
            self.recipe.logit_adjustment * self._prior_K,
            self.recipe.label_smoothing,
        )
        # What is smoothed away goes where the adjustment puts a picture of nothing: evenly shared,
        # it would make rare emoji likely all the same, and undo the adjustment.
        smooth_BK = (1 - smoothing) * y_BK.to(device()) + smoothing * prior_K.softmax(0)
        return cross_entropy(logits_BK + prior_K, smooth_BK, reduction="sum")

    # -- its state --------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Everything that a step changes, by name; `restore` takes it back."""
        state = {f"net.{name}": tensor for name, tensor in self.net.state_dict().items()}
        for number, (parameter, average) in enumerate(
            zip(self._parameters, self._average, strict=True)
        ):
            state[f"average.{number}"] = average
            for name, tensor in self._optimizer.state[parameter].items():
                state[f"optimizer.{number}.{name}"] = tensor
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """Goes on from a state, of the same recipe and vocabulary."""
        nets = {k.removeprefix("net."): t for k, t in state.items() if k.startswith("net.")}
        self.net.load_state_dict(nets)
        for number, (parameter, average) in enumerate(
            zip(self._parameters, self._average, strict=True)
        ):
            average.copy_(state[f"average.{number}"])
            prefix = f"optimizer.{number}."
            self._optimizer.state[parameter] = {
                name.removeprefix(prefix): _as(parameter, name, tensor)
                for name, tensor in state.items()
                if name.startswith(prefix)
            }

    def learned(self) -> Network:
        """The network with its averaged weights, for judging and publishing: eager float32."""
        net = Network(self.architecture, self.preprocessing, len(self.vocabulary))
        net.load_state_dict(self.net.state_dict())
        if self.recipe.ema:
            mine = dict(net.named_parameters())
            learning = (n for n, p in self.net.named_parameters() if p.requires_grad)
            with torch.no_grad():
                for name, average in zip(learning, self._average, strict=True):
                    mine[name].copy_(average)
        return net.eval().requires_grad_(False).to(device(), memory_format=torch.channels_last)


def device() -> torch.device:
    """The first GPU, if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def chain(backbone: nn.Module, size_px: int) -> list[nn.Module]:
    """The modules that, one after the other, compute what the backbone computes.

    One link where it is no such chain: then all of it is frozen, or nothing.
    """
    links = list(_flat(backbone))
    x = torch.rand(1, 3, size_px, size_px)
    backbone.eval()
    with torch.no_grad():
        whole = backbone(x)
        try:
            for link in links:
                x = link(x)
        except Exception:  # of any type, where a link wants more than a tensor
            return [backbone]
    return links if x.shape == whole.shape and torch.equal(x, whole) else [backbone]


def _flat(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, nn.Sequential):
            yield from _flat(child)
        elif not isinstance(child, nn.Identity):
            yield child


def preprocessing(recipe: Recipe) -> Preprocessing:
    """How the recipe's backbone sees pictures: as it was taught to."""
    if recipe.weights not in ("imagenet", "random"):
        known = model.load(Path(recipe.weights)).preprocessing
        return replace(known, size_px=recipe.size_px)
    return replace(starter.PREPROCESSING, size_px=recipe.size_px)


def architecture(recipe: Recipe, preprocessing: Preprocessing) -> Architecture:
    """The backbone with a linear head. Raises MalformedRequest unless it ends in a map."""
    edge = preprocessing.size_px
    try:
        with torch.device("meta"):
            backbone = timm.create_model(
                recipe.backbone, pretrained=False, num_classes=0, global_pool=""
            )
            shape = tuple(backbone.eval()(torch.empty(1, 3, edge, edge)).shape)
    except Exception as error:  # timm's networks raise any type
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise MalformedRequest(
            f"timm cannot build {recipe.backbone!r:.80} for {edge} px: {why:.200}",
            field="settings.backbone",
        ) from None
    if len(shape) != 4:
        raise MalformedRequest(
            f"{recipe.backbone} ends in {shape}, not in a map (1, features, h, w), from which "
            "saliency comes; choose a convolutional network.",
            field="settings.backbone",
        )
    return Architecture(backbone=recipe.backbone, features=shape[1], head="linear")


def _begin(net: Network, recipe: Recipe, vocabulary: Vocabulary) -> None:
    """Gives the network the weights that it begins with."""
    assert isinstance(net.head, nn.Linear)
    nn.init.zeros_(net.head.bias)
    nn.init.normal_(net.head.weight, std=0.01)
    if recipe.weights == "random":
        return
    if recipe.weights == "imagenet":
        arrays, known = _imagenet(recipe)
        table_CK = starter.table(known, [])[:, :-1]
    else:
        published = model.load(Path(recipe.weights))
        if published.architecture.backbone != recipe.backbone:
            raise MalformedRequest(
                f"{recipe.weights} has the backbone {published.architecture.backbone}, the recipe "
                f"{recipe.backbone}; set both alike.",
                field="settings.weights",
            )
        arrays, known = published.weights(), published.vocabulary
        table_CK = arrays.get("head.table_CK", np.eye(len(known), dtype=np.float32))
    backbone = {n: torch.from_numpy(a) for n, a in arrays.items() if n.startswith("backbone.")}
    net.load_state_dict(backbone, strict=False)
    if recipe.warm_start:
        rows = [arrays[name] for name in CLASSIFIER if name in arrays]
        weight_CF, bias_C = rows or (arrays["head.weight"], arrays["head.bias"])
        _warm(net.head, weight_CF, bias_C, table_CK, _places(known, vocabulary))


def _imagenet(recipe: Recipe) -> tuple[model.Arrays, Vocabulary]:
    if recipe.backbone != starter.IMAGENET.backbone:
        raise MalformedRequest(
            f"Of {recipe.backbone} there are no ImageNet weights here, only of "
            f"{starter.IMAGENET.backbone}; set weights=random, or to a model's folder.",
            field="settings.weights",
        )
    shell = network.Network(starter.IMAGENET, starter.PREPROCESSING, 1)
    return starter.lite0(list(shell.state_dict())), starter.vocabulary()


def _places(known: Vocabulary, wanted: Vocabulary) -> list[int | None]:
    return [known.index(emoji) for emoji in wanted.emoji]


def _warm(
    head: nn.Linear,
    weight_CF: np.ndarray,
    bias_C: np.ndarray,
    table_CK: np.ndarray,
    places: Iterable[int | None],
) -> None:
    """Begins each emoji's row as the mean of the classes that mean it, where some do."""
    centre_F, middle = weight_CF.mean(0), bias_C.mean()
    with torch.no_grad():
        for row, place in enumerate(places):
            if place is None or not (share_C := table_CK[: len(bias_C), place]).any():
                continue
            share_C = share_C / share_C.sum()
            head.weight[row] = torch.from_numpy(share_C @ weight_CF - centre_F)
            head.bias[row] = float(share_C @ bias_C - middle)


def _pieces(batch: Batch, at_once: int) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(batch.x.split(at_once), batch.y_BK.split(at_once), strict=True)


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:  # this process had no image
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _as(parameter: Tensor, name: str, tensor: Tensor) -> Tensor:
    """A tensor of the optimizer's where it wants it."""
    if name.endswith(".step"):
        return tensor.clone()
    return tensor.to(parameter.device, memory_format=_form(parameter)).clone()


def _form(tensor: Tensor) -> torch.memory_format:
    last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _cast(wanted: bool) -> AbstractContextManager[object]:
    return torch.autocast(device().type, torch.bfloat16) if wanted else nullcontext()
