"""`make prove-swap`: models change under load, and nobody who calls notices.

A real server at 60 % of what it can do, callers who do not wait for each other, and a model that
changes every few seconds: every other time to a good one, of another vocabulary, every other time
to one that must not be served, to which live.json was turned by hand. Latencies while a model is
changing are held against those of the pauses between, in the same stream of calls: whatever else
the machine does happens to both.
"""

import asyncio
import itertools
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import grpc
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from clients import load
from clients.arrivals import poisson, steps
from clients.demo import free_port, is_ready
from clients.load import Call
from clients.report import Kind
from emojinet.v1 import inference_service_pb2 as pb
from emojinet.v1 import inference_service_pb2_grpc as rpc
from services.shared import model, network, registry, starter
from services.shared.errors import BadModel
from services.shared.model import Architecture, Model
from services.shared.registry import Live
from services.shared.vocabulary import Vocabulary
from services.trainer import publish
from tests.photographs import make
from tests.prove import damaged

REGISTRY = Path("data/registry")
SHARE = 0.6  # of the measured capacity
TOLERANCE = 1e-3  # of a probability
PAUSE_SECONDS = 3.0  # between changes; the first second counts as part of the change
SETTLE_SECONDS = 1.0
PATIENCE_SECONDS = 60.0  # for one change
BURST_SECONDS = 4.0
EMOJI = 60


class Pictures(NamedTuple):
    """What is shown to the models: a validation split, too."""

    contents: list[bytes]

    @property
    def keys(self) -> list[str]:
        return [sha256(content).hexdigest() for content in self.contents]

    @property
    def classes(self) -> list[tuple[int, ...]]:
        return [(number,) for number in range(len(self.contents))]

    def read(self, number: int) -> bytes:
        return self.contents[number]


@dataclass
class Change:
    """One turn of live.json, and when it was seen to have had its effect."""

    kind: str
    which: Live
    turned: float
    done: float = 0.0

    @property
    def is_good(self) -> bool:
        return self.kind == "good"


def linear(folder: Path, like: Model, backbone: str, features: int, pictures: Pictures) -> Model:
    """A model of fewer emoji with a random head; on the weights of `like` if that has them."""
    known = Vocabulary(like.vocabulary.emoji[:EMOJI], tuple(range(EMOJI, 0, -1)))
    architecture = Architecture(backbone=backbone, features=features, head="linear")
    net = network.Network(architecture, like.preprocessing, EMOJI)
    draw = np.random.default_rng(5)
    arrays = network.weights(net)
    if backbone == like.architecture.backbone:
        arrays = {n: a for n, a in like.weights().items() if n.startswith("backbone.")}
        arrays["head.weight"] = draw.normal(0, 0.1, (EMOJI, features)).astype(np.float32)
        arrays["head.bias"] = draw.normal(0, 1, EMOJI).astype(np.float32)
    return publish.build(
        folder,
        name=f"linear-{features}",
        learner_net=network.with_weights(net, arrays),
        architecture=architecture,
        preprocessing=like.preprocessing,
        vocabulary=known,
        temperature=1.3,
        validation=pictures,
        card="# For a proof\n",
    )


def answers(of: Model, pictures: Pictures) -> np.ndarray:
    """Probabilities (N, emoji) that the model gives for the pictures, by eager PyTorch."""
    net = network.read(of)
    views = (model.view(of.preprocessing, content) for content in pictures.contents)
    return np.stack([of.probabilities(network.look(net, v[None])[0])[0] for v in views])


class Server:
    """`python -m services.inference` on a registry, and what it says."""

    def __init__(self, root: Path, log: Path) -> None:
        self.address, self._log = f"127.0.0.1:{free_port()}", log
        ports = (f"--port={self.address.split(':')[1]}", f"--metrics-port={free_port()}")
        command = [sys.executable, "-m", "services.inference", f"--registry={root}", *ports]
        with log.open("wb") as said:
            self._process = subprocess.Popen(command, stderr=said)
        if not is_ready(self.address, self._process):
            raise SystemExit(f"the server did not start:\n{log.read_text()[-2000:]}")

    def refusals(self) -> list[str]:
        """What it has said of models that it does not serve."""
        return [line for line in self._log.read_text().splitlines() if "goes on" in line]

    def stop(self) -> None:
        """Ends it as Kubernetes would."""
        self._process.terminate()
        self._process.wait(60)


async def capacity(address: str, requests: list[bytes], rng: random.Random) -> float:
    """Good answers a second, at best, under more and more load."""
    best = 0.0
    for rate in itertools.accumulate(itertools.repeat(1.4), lambda r, by: r * by, initial=40.0):
        schedule = poisson(steps([rate], BURST_SECONDS), rng)
        plan = load.plan(schedule, lambda: rng.choice(requests), rng)
        report = await load.run(address, plan)
        good = report.count(Kind.GOOD) / BURST_SECONDS
        if good < 0.85 * rate:
            return max(good, best)
        best = good
    raise AssertionError("unreachable: a server has a limit")


class Proof:
    """The load and the changes, side by side."""

    def __init__(
        self, root: Path, server: Server, good: list[Model], bad: dict[str, Live], seed: int
    ) -> None:
        self._root, self._server, self._good, self._bad = root, server, good, bad
        self._rng = random.Random(seed)
        self._ended = False
        self.start = 0.0
        self.changes: list[Change] = []

    def calls(self, requests: list[bytes], rate: float) -> Iterator[Call]:
        """Independent callers, until all changes are made."""
        self.start, at = asyncio.get_running_loop().time(), 0.0
        while not self._ended:
            at += self._rng.expovariate(rate)
            yield Call(at, self._rng.choice(requests))

    async def change(self, count: int) -> None:
        """Turns live.json so often, and waits each time until the server has made up its mind."""
        kinds = list(self._bad)
        self._rng.shuffle(kinds)
        wrong, right = itertools.cycle(kinds), itertools.cycle(self._good[1:] + self._good[:1])
        try:
            async with grpc.aio.insecure_channel(self._server.address) as channel:
                stub = rpc.InferenceServiceStub(channel)
                await asyncio.sleep(10 * PAUSE_SECONDS)
                for number in range(count):
                    kind = "good" if number % 2 else next(wrong)
                    one = next(right) if kind == "good" else None
                    which = Live(one.name, one.version) if one else self._bad[kind]
                    await self._one(stub, kind, which)
                    await asyncio.sleep(SETTLE_SECONDS + PAUSE_SECONDS)
        finally:
            self._ended = True

    async def _one(self, stub: rpc.InferenceServiceStub, kind: str, which: Live) -> None:
        refused = len(self._server.refusals())
        damaged.turn(self._root, which)
        change = Change(kind, which, self._now())
        while not await self._has_decided(stub, change, refused):
            if self._now() > change.turned + PATIENCE_SECONDS:
                raise SystemExit(f"nothing came of turning to {kind} {which} in time")
            await asyncio.sleep(0.1)
        change.done = self._now()
        self.changes.append(change)
        print(f"{len(self.changes)}: {kind}, {change.done - change.turned:.1f} s", file=sys.stderr)

    async def _has_decided(
        self, stub: rpc.InferenceServiceStub, change: Change, refused: int
    ) -> bool:
        if not change.is_good:
            return len(self._server.refusals()) > refused
        serves = (await stub.GetServedModel(pb.GetServedModelRequest(), timeout=10)).model
        return (serves.name, serves.version) == change.which

    def _now(self) -> float:
        return asyncio.get_running_loop().time() - self.start


def mixed(
    answered: list[tuple[float, int, pb.SuggestResponse]],
    changes: list[Change],
    good: list[Model],
    pictures: Pictures,
) -> Counter[str]:
    """What is wrong with answers: each a time, which picture was asked about, and what came."""
    expected = {(m.name, m.version): (m, answers(m, pictures)) for m in good}
    wrong: Counter[str] = Counter()
    turns = [change for change in changes if change.is_good]
    for at, picture, response in answered:
        version = Live(response.model.name, response.model.version)
        if version not in expected:
            wrong["of a model that must not be served"] += 1
            continue
        spoke, table_NK = expected[version]
        for said in response.results[0].suggestions.suggestions:
            place = spoke.vocabulary.index(said.emoji)
            if place is None or spoke.vocabulary.emoji[place] != said.emoji:
                wrong["an emoji of another vocabulary"] += 1
            elif abs(table_NK[picture, place] - said.probability) > TOLERANCE:
                wrong["a probability of another model"] += 1
        last = [change.which for change in turns if change.done < at]
        coming = [change.which for change in turns if change.turned < at + 1 and change.done >= at]
        if last and version not in (last[-1], *coming):
            wrong["of a model that was replaced"] += 1
    return wrong


def p99(latencies: list[float]) -> float:
    """Milliseconds."""
    return statistics.quantiles(latencies, n=100)[98] * 1000


def figures(
    proof: Proof, made: list[load._Answer], wrong: Counter[str], rate: float, limit: float
) -> dict[str, Any]:
    """What is printed."""
    outcomes = [load._outcome(answer) for answer in made]
    windows = [(c.turned, c.done + SETTLE_SECONDS) for c in proof.changes]

    def changing(at: float) -> bool:
        return any(start <= at < end for start, end in windows)

    good = [outcome for outcome in outcomes if outcome.kind is Kind.GOOD]
    during = p99([o.latency for o in good if changing(o.at)])
    between = p99([o.latency for o in good if not changing(o.at)])
    taken = [c.done - c.turned for c in proof.changes if c.is_good]
    refused = [c.done - c.turned for c in proof.changes if not c.is_good]
    return {
        "swaps": len(proof.changes),
        "bad": len(refused),
        "calls": len(outcomes),
        "failed_calls": len(outcomes) - len(good),
        "mixed_answers": wrong.total(),
        "p99_ratio": during / between,
        "p99_ms": during,
        "p99_between_ms": between,
        "p50_ms": statistics.median(o.latency for o in good if changing(o.at)) * 1000,
        "p50_between_ms": statistics.median(o.latency for o in good if not changing(o.at)) * 1000,
        "seconds_per_swap": statistics.median(taken),
        "longest_swap_seconds": max(taken),
        "seconds_per_refusal": statistics.median(refused),
        "load": rate,
        "capacity": limit,
        "load_share": rate / limit,
        "why": dict(Counter(o.why or o.kind.value for o in outcomes if o.kind is not Kind.GOOD)),
        "what_is_mixed": dict(wrong),
    }


async def run(proof: Proof, server: Server, requests: list[bytes], rate: float, swaps: int) -> Any:
    """What became of every call, the changes being made beside them."""
    channels = [load._channel(server.address) for _ in range(4)]
    sends = [channel.unary_unary(load.METHOD, None, None) for channel in channels]
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(proof.change(swaps))
            made = await load._answers(proof.calls(requests, rate), sends)
    finally:
        await asyncio.gather(*(channel.close(None) for channel in channels))
    return made


def refused_by_the_trainer(root: Path, bad: dict[str, Live]) -> None:
    """Whoever activates as he should cannot make any of them live."""
    for kind, which in bad.items():
        try:
            publish.verify(root, which)
        except BadModel:
            continue
        raise SystemExit(f"the trainer would activate a model that is {kind}")


def prove(
    swaps: int, folder: Path, starting: Path, *, share: float = SHARE, seed: int = 1
) -> dict[str, Any]:
    """Every figure of the proof.

    Args:
        folder: for its registry and models.
        starting: the folder of the starter.
        share: of what the server can do, that it is asked for.
    """
    root, rng = folder / "registry", random.Random(seed)
    pictures = Pictures(make(640, 480, 18))
    first = _copied(root, model.load(starting))
    second = linear(folder / "linear", first, first.architecture.backbone, 1280, pictures)
    other = linear(folder / "other", first, "test_efficientnet", 256, pictures)
    which = registry.publish(root, second.folder)
    good = [first, registry.load(root, which)]
    bad = damaged.all_kinds(root, good[1], other)
    refused_by_the_trainer(root, bad)
    requests = load.requests(pictures.contents, rng)
    server = Server(root, folder / "server.log")
    try:
        limit = asyncio.run(capacity(server.address, requests, rng))
        proof, rate = Proof(root, server, good, bad, seed), share * limit
        made = asyncio.run(run(proof, server, requests, rate, swaps))
    finally:
        server.stop()
    answered = [
        (a.call.at, requests.index(a.call.request), pb.SuggestResponse.FromString(a.came))
        for a in made
        if isinstance(a.came, bytes)
    ]
    return figures(proof, made, mixed(answered, proof.changes, good, pictures), rate, limit)


def _copied(root: Path, like: Model) -> Model:
    """The model in a registry of our own, and live there."""
    own = damaged.lay(root, like.name, {name: like.read(name) for name in like.files})
    registry.activate(root, own)
    return registry.load(root, own)


def main(
    swaps: Annotated[int, typer.Option(min=2)] = 50,
    log: Annotated[Path | None, typer.Option(help="Where the server's log is kept.")] = None,
) -> None:
    """Prints a table, and as the last line RESULT with the figures as JSON."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        starting = registry.folder(REGISTRY, starter.ensure(REGISTRY))
        found = prove(swaps, Path(folder), starting)
        if log:
            log.write_bytes((Path(folder) / "server.log").read_bytes())
    found["minutes"] = (time.monotonic() - began) / 60
    table = Table("figure", "value")
    for name, value in found.items():
        table.add_row(name, f"{value:.3f}" if isinstance(value, float) else str(value))
    Console().print(table)
    print("RESULT", json.dumps(found))


if __name__ == "__main__":
    typer.run(main)
