"""Trainings and atlases of a service: started, one at a time, gone on with, cancelled."""

import asyncio
import logging
import os
import re
import secrets
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from google.protobuf import json_format

from emojinet.v1 import state_pb2 as states
from emojinet.v1 import trainer_service_pb2 as pb
from services.shared import errors, model, shards
from services.shared.errors import (
    EmojinetError,
    MalformedRequest,
    StorageFailed,
    TrainingFailed,
    UnknownDataset,
    UnknownRun,
)
from services.shared.queue import internal
from services.shared.watching import LIVE
from services.trainer import recipe
from services.trainer.atlas import asked as atlas
from services.trainer.child import Child
from services.trainer.following import Following
from services.trainer.metrics import Metrics

LOOK_SECONDS = 0.25  # between looks at what a run says
PAUSE_SECONDS = 30.0  # before what waits for a person is tried again
BACKOFF_SECONDS = 1.0  # before a run that was killed goes on; twice as long each time
MAX_DEATHS = 5  # in a row, without a step that was not made before
MAX_RUN_BYTES = 1 << 20
MAX_SETTING = 4096  # characters: they travel on a command line
DATASET = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
NAME = re.compile(r"(train|atlas)-[0-9]{8}-[0-9]{6}-[0-9a-f]{4}")
RUN = "run.json"
NAMED = 10  # data sets, to who names one that is not there

log = logging.getLogger(__name__)
Command = Callable[[pb.Run, Path, Path], Sequence[str]]


def command(run: pb.Run, dataset: Path, data: Path, registry: Path | None = None) -> Sequence[str]:
    """The program that does the run, or goes on with it."""
    asked = run.request
    program = (sys.executable, "-m", "services.trainer")
    where = (f"--output={run.uri}", f"--data={data.absolute()}")
    if asked.kind == pb.RUN_KIND_ATLAS:
        said = sorted(atlas.settings(asked.settings).items())
        models = (registry or data / "registry").absolute()
        options = (f"--{field}={value}" for field, value in said)
        return [*program, "atlas", str(dataset), *where, f"--registry={models}", *options]
    named = [f"--model-name={asked.model_name}"] if asked.model_name else []
    return [
        *(*program, "run", asked.recipe),
        *(f"--dataset={dataset}", *where, *named),
        *(f"--set={field}={asked.settings[field]}" for field in sorted(asked.settings)),
    ]


def dataset_folder(data: Path, named: str) -> Path:
    """The folder of a data set, by its name among the crawler's, or by its own path.

    Raises:
        MalformedRequest: it is neither a name nor an absolute path.
        UnknownDataset: there is none.
    """
    by_name = DATASET.fullmatch(named)
    if not by_name and not named.startswith("/"):
        raise MalformedRequest(
            f"`dataset` is a data set's name, or a folder's absolute path, and not {named!r:.80}.",
            field="dataset",
        )
    folder = (data / "datasets" / named).absolute()  # an absolute path stays what it is
    if not os.path.isdir(folder):
        known = sorted(path.parent.name for path in (data / "datasets").glob("*/dataset.json"))
        there = f"there are {', '.join(known[:NAMED])}" if known else "there is none yet"
        raise UnknownDataset(f"There is no data set {named:.200}; {there}.", name=named[:200])
    return folder


def check_model_name(name: str) -> None:
    """Raises MalformedRequest unless a model can be called so; empty means no name."""
    if name and not model.NAME.fullmatch(name):
        raise MalformedRequest(
            f"A model's name is made of a-z, 0-9, ., _ and -, 64 at most, and not {name!r:.80}.",
            field="model_name",
        )


def _check_atlas(request: pb.StartRunRequest) -> None:
    """Raises MalformedRequest for what no atlas has."""
    atlas.settings(request.settings)
    for field, value in (("recipe", request.recipe), ("model_name", request.model_name)):
        if value:
            raise MalformedRequest(f"An atlas learns nothing: leave `{field}` empty.", field=field)
    if not request.dataset:
        raise MalformedRequest("`dataset` is required.", field="dataset")


class Runs:
    """All runs of one data folder; the oldest that has not ended is at work."""

    def __init__(self, data: Path, metrics: Metrics, command: Command = command) -> None:
        self._data, self._metrics, self._command = data, metrics, command
        self._runs: dict[str, pb.Run] = {}
        self._more = asyncio.Event()
        self._at_work: asyncio.Task[None] | None = None
        # Of a copy: a scrape looks from a thread of its own.
        metrics.show_runs(lambda state: sum(r.state == state for r in list(self._runs.values())))

    @property
    def _folder(self) -> Path:
        return self._data.absolute() / "runs"

    def go_on(self) -> None:
        """Continues what an earlier process of this service began."""
        found = [run for path in self._folder.glob(f"*/{RUN}") if (run := _read(path))]
        for run in sorted(found, key=lambda run: run.create_time.ToNanoseconds()):
            if run.state == states.STATE_RUNNING:  # not again yet
                run.state = states.STATE_PENDING
            self._runs[run.name] = run
        self._working = asyncio.create_task(self._work())

    def start(self, request: pb.StartRunRequest) -> pb.Run:
        """A new run, at work when those before it have ended.

        Raises:
            MalformedRequest: a field breaks its rule.
            UnknownDataset: there is none of that name.
            StorageFailed: it cannot be written down.
        """
        self._check(request)
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        kind = pb.RunKind.Name(request.kind).removeprefix("RUN_KIND_").lower()
        run = pb.Run(name=f"{kind}-{stamp}-{secrets.token_hex(2)}", request=request)
        run.uri, run.activity = str(self._folder / run.name), "waits for its turn"
        run.create_time.GetCurrentTime()
        self._runs[run.name] = _write(_turned(run, states.STATE_PENDING))
        self._more.set()
        return self.get(run.name)

    def get(self, name: str) -> pb.Run:
        """A run as it is now."""
        if name not in self._runs:
            raise UnknownRun(f"There is no run {name:.80}.", name=name[:80])
        now = pb.Run()
        now.CopyFrom(self._runs[name])
        return now

    def list(self) -> Sequence[pb.Run]:
        """All runs, the newest first."""
        return [self.get(name) for name in reversed(self._runs)]

    async def cancel(self, name: str) -> pb.Run:
        """Ends a run for good; one that has ended stays as it is.

        Raises:
            UnknownRun: there is none of that name.
            StorageFailed: it cannot be written down, and so goes on.
        """
        self.get(name)
        run = self._runs[name]
        if run.state in LIVE:
            # First of all: whoever asked may go away while the run comes to its end.
            run.CopyFrom(_write(_turned(run, states.STATE_CANCELLED)))
            if (task := self._at_work) and task.get_name() == name:
                task.cancel()
                await asyncio.wait([task])
        return self.get(name)

    async def close(self) -> None:
        """Stops working; what is not done is gone on with by the next process."""
        tasks = [task for task in (self._working, self._at_work) if task]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    def _check(self, request: pb.StartRunRequest) -> None:
        if request.kind not in (pb.RUN_KIND_TRAIN, pb.RUN_KIND_ATLAS):
            raise MalformedRequest("`kind` is RUN_KIND_TRAIN or RUN_KIND_ATLAS.", field="kind")
        for field, value in request.settings.items():
            if len(value) > MAX_SETTING:
                raise MalformedRequest(
                    f"The setting {field:.80} is longer than {MAX_SETTING} characters.",
                    field=f"settings.{field:.80}",
                )
        check_model_name(request.model_name)
        self._dataset(request)

    def _dataset(self, request: pb.StartRunRequest) -> Path:
        """The data set that is asked for, or the recipe's own; raises as `start`."""
        if request.kind == pb.RUN_KIND_ATLAS:
            _check_atlas(request)
            return dataset_folder(self._data, request.dataset)
        asked = recipe.read(request.recipe, request.settings)
        if not (named := request.dataset or asked.dataset):
            raise MalformedRequest(
                f"`dataset` is required: the recipe {asked.name} has none of its own.",
                field="dataset",
            )
        return dataset_folder(self._data, named)

    # -- at work ----------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Does one run after the other."""
        while True:
            self._more.clear()
            waiting = (name for name, run in self._runs.items() if run.state in LIVE)
            if (name := next(waiting, None)) is None:
                await self._more.wait()
                continue
            self._at_work = asyncio.create_task(self._live(self._runs[name]), name=name)
            await asyncio.wait([self._at_work])
            self._at_work = None

    async def _live(self, run: pb.Run) -> None:
        """A run's life in this process, with pauses, until it ends."""
        following = Following(run, self._metrics)
        while True:
            try:
                done = await following.history()
                _note(run, states.STATE_RUNNING)
                if not done:
                    await self._train(run, following)
                _note(run, states.STATE_SUCCEEDED)
                return
            except EmojinetError as error:
                failure = error
            except Exception as error:
                failure = internal(error)
            pausing = isinstance(failure, StorageFailed)
            state = states.STATE_PAUSED if pausing else states.STATE_FAILED
            _note(run, state, failure)
            if not pausing:
                return
            await asyncio.sleep(PAUSE_SECONDS)

    async def _train(self, run: pb.Run, following: Following) -> None:
        """Has it done by processes, one after the other while they are killed.

        Raises:
            EmojinetError: why it cannot be done, or not now.
        """
        deaths, furthest = 0, following.furthest
        while number := await self._process(run, following):
            deaths = deaths + 1 if following.furthest <= furthest else 1
            furthest = following.furthest
            name = signal.strsignal(number) or f"signal {number}"
            if deaths > MAX_DEATHS:
                raise TrainingFailed(
                    f"The training was killed {deaths} times without getting further ({name}): "
                    "give it more memory, or choose a smaller `at_once` or `batch`."
                )
            run.activity = f"was killed ({name}); goes on soon"
            log.warning("%s %s", run.name, run.activity)
            await asyncio.sleep(BACKOFF_SECONDS * 2 ** (deaths - 1))

    async def _process(self, run: pb.Run, following: Following) -> int:
        """Has it done by a process; returns the signal that killed it, or 0 when it is done."""
        child = Child(self._command(run, self._dataset(run.request), self._data))
        run.activity = "starting"
        done = False
        try:
            while (status := child.ended()) is None and not done:
                await asyncio.sleep(LOOK_SECONDS)
                done = await following.look()
        finally:
            # In a thread: it may take seconds, and must be done though this is cancelled.
            await asyncio.shield(asyncio.to_thread(child.end, asked=not done))
        if done or await following.look():
            return 0
        if status and status < 0:
            return -status
        where = f"its folder is {run.uri}, and the service's log may say why"
        if status == os.EX_TEMPFAIL:  # too full a disk to write that down
            raise StorageFailed(f"The run found no room on the disk: {where}.", path=run.uri)
        raise TrainingFailed(f"The run ended with exit status {status}: {where}.", path=run.uri)


def _turned(run: pb.Run, state: states.State, failure: EmojinetError | None = None) -> pb.Run:
    """The run in another state."""
    new = pb.Run()
    new.CopyFrom(run)
    new.state = state
    new.ClearField("error")
    if failure:
        new.error.CopyFrom(errors.to_proto(failure))
    if state not in LIVE:
        new.end_time.GetCurrentTime()
        new.ClearField("activity")
    return new


def _note(run: pb.Run, state: states.State, failure: EmojinetError | None = None) -> None:
    """Turns a run, also if the disk is full: the next process of the service finds out again."""
    run.CopyFrom(_turned(run, state, failure))
    named = states.State.Name(state).removeprefix("STATE_").lower()
    log.info("%s is %s%s", run.name, named, f": {failure}" if failure else "")
    try:
        _write(run)
    except StorageFailed as error:
        log.warning("%s: %s", run.name, error)


def _read(path: Path) -> pb.Run | None:
    """A run as it was written down; none, and a word in the log, if it makes no sense."""
    try:
        content = model.read_regular(path, MAX_RUN_BYTES)
        run = json_format.Parse(content, pb.Run(), ignore_unknown_fields=True)
        if run.name != path.parent.name or not NAME.fullmatch(run.name):
            raise ValueError("it is that of another run")
    except (OSError, ValueError, RecursionError, json_format.ParseError) as error:
        log.warning("%s is passed over: %s", path, error)
        return None
    run.uri = str(path.parent)
    return run


def _write(run: pb.Run) -> pb.Run:
    """The run, which is on the disk, whole or not at all. Raises StorageFailed."""
    path = Path(run.uri) / RUN
    content = json_format.MessageToJson(run, preserving_proto_field_name=True, indent=1)
    with shards.writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    shards.replace(path, content.encode() + b"\n")
    return run
