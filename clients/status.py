"""`emojinet status`: what runs, what it is doing, which model is live, and where the logs are."""

import contextlib
import json as json_
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import typer
from rich.console import Console
from rich.text import Text

from clients import options, supervised
from clients.client import channel_options, from_rpc
from clients.credentials import Credentials, trouble
from clients.options import Json
from clients.progress import as_object, columns, printable_text, tally
from clients.supervised import CRAWLER, INFERENCE, SERVICES, TRAINER, WEB, Service
from clients.up import Data, data_or_default, typed
from emojinet.v1 import crawler_service_pb2, inference_service_pb2, trainer_service_pb2
from emojinet.v1 import crawler_service_pb2_grpc as crawler_rpc
from emojinet.v1 import inference_service_pb2_grpc as inference_rpc
from emojinet.v1 import trainer_service_pb2_grpc as trainer_rpc
from services.shared.errors import ServerUnreachable
from services.shared.watching import LIVE

ANSWER_SECONDS = 2.0
STYLES = {"ready": "green", "starting": "yellow", "ending": "yellow"}  # all others: red
# Of who answers with an error; all others are starting.
ANSWERED = {
    grpc.StatusCode.DEADLINE_EXCEEDED: "silent",
    grpc.StatusCode.UNAUTHENTICATED: "refuses us",
    grpc.StatusCode.PERMISSION_DENIED: "refuses us",
}
# What supervisord says of a process that does not answer, as people say it.
STATES = {
    "STARTING": "starting",
    "RUNNING": "starting",
    "EXITED": "starting",
    "BACKOFF": "failing",
    "FATAL": "failed",
    "STOPPING": "ending",
    "STOPPED": "ended",
}


class Answer(NamedTuple):
    """What a service says of itself."""

    doing: str
    facts: dict[str, Any]  # the same for programs
    state: str = "ready"


NOBODY = Answer("nobody answers", {}, "not there")


class Row(NamedTuple):
    """What is known of a service."""

    service: Service
    address: str
    answer: Answer
    process: dict[str, Any]  # as supervisord tells of it; empty where it was started by hand
    log: Path

    @property
    def state(self) -> str:
        said = self.answer.state
        told = STATES.get(self.process.get("statename", ""), said)
        return said if said in ("ready", *ANSWERED.values()) else told

    @property
    def doing(self) -> str:
        """What it does; of what ends soon after each start, its last words."""
        words = supervised.last_words(self.log) if self.state in ("failing", "failed") else ""
        return words or self.answer.doing


def status(
    data: Data = None,
    json: Json = False,
    server: options.Server = "",
    crawler: options.Crawler = "",
    trainer: options.Trainer = "",
) -> None:
    """Show what runs, what it is doing, which model is live, and where its logs are.

    Services that were started by hand are shown, too, where they answer at the usual addresses.
    Exit status: 0 if all are ready, 1 if not.
    """
    data = data_or_default(data)
    rows = _rows(data, {INFERENCE: server, CRAWLER: crawler, TRAINER: trainer})
    if json:
        for row in rows:
            print(json_.dumps(_object(row)))
    else:
        _show(rows, data)
    if any(row.state != "ready" for row in rows):
        raise typer.Exit(1)


def _rows(data: Path, asked: dict[Service, str]) -> list[Row]:
    """Every service, asked all at once: one that hangs does not keep the others waiting."""
    offset, processes = _supervised(data)
    addresses = [asked.get(service) or service.address(offset) for service in SERVICES]
    with ThreadPoolExecutor(len(SERVICES)) as threads:
        answers = threads.map(_answer, SERVICES, addresses)
    return [
        Row(
            service,
            address,
            answer,
            processes.get(service.name, {}) if address == service.address(offset) else {},
            supervised.log_path(data, service.name),
        )
        for service, address, answer in zip(SERVICES, addresses, answers, strict=True)
    ]


def _supervised(data: Path) -> tuple[int, dict[str, dict[str, Any]]]:
    """What the supervisor tells, if there is one and it does."""
    try:
        if supervisor := supervised.running(data / "up"):
            with supervisor:
                return supervisor.offset(), supervisor.processes()
    except supervised.Gone:
        pass
    except ServerUnreachable as error:
        options.say(f"emojinet: {error}")
    return 0, {}


def _answer(service: Service, address: str) -> Answer:
    if service is WEB:
        return _web(address)
    asking = {CRAWLER: _crawler, TRAINER: _trainer, INFERENCE: _inference}[service]
    try:
        credentials = Credentials.of_environment()
        channel = credentials.channel(address, channel_options(address))
        with contextlib.closing(channel):
            return asking(channel)
    except ServerUnreachable as error:
        return NOBODY._replace(doing=str(error))
    except grpc.RpcError as failure:
        if told := trouble(address, failure.details()):
            return NOBODY._replace(doing=str(told))
        answered = from_rpc(failure, address)
        if isinstance(answered, ServerUnreachable):
            return NOBODY
        return Answer(str(answered), {}, ANSWERED.get(answered.code, "starting"))


def _web(address: str) -> Answer:
    try:
        if supervised.page_answers(address, ANSWER_SECONDS):
            return Answer(f"http://{address}", {"url": f"http://{address}"})
        return NOBODY
    except TimeoutError:
        return Answer(f"{address} did not answer in time.", {}, "silent")


def _crawler(channel: grpc.Channel) -> Answer:
    request = crawler_service_pb2.ListCrawlsRequest()
    stub = crawler_rpc.CrawlerServiceStub(channel)
    crawls = [c for c in stub.ListCrawls(request, timeout=ANSWER_SECONDS).crawls if c.state in LIVE]
    doing = [
        f"{crawl.name}: {crawl.activity}, {tally(crawl.funnel, 'image', 'stored'):,} pictures"
        for crawl in crawls
    ]
    return Answer("\n".join(doing) or "no crawl", {"crawls": [as_object(c) for c in crawls]})


def _trainer(channel: grpc.Channel) -> Answer:
    stub = trainer_rpc.TrainerServiceStub(channel)
    listed = stub.ListRuns(trainer_service_pb2.ListRunsRequest(), timeout=ANSWER_SECONDS)
    models: list[trainer_service_pb2.Model] = []
    with contextlib.suppress(grpc.RpcError):  # it is well, and looks at many, or at a slow disk
        request = trainer_service_pb2.ListModelsRequest()
        models.extend(stub.ListModels(request, timeout=ANSWER_SECONDS).models)
    runs = [run for run in listed.runs if run.state in LIVE]
    doing = [
        f"{run.name}: {run.activity}, step {run.progress.step:,} of {run.progress.steps:,}"
        for run in runs
    ]
    live = next((f"{m.name}@{m.version}" for m in models if m.live), None)
    facts = {"runs": [as_object(run) for run in runs], "live": live}
    return Answer("\n".join(doing) or "no run", facts)


def _inference(channel: grpc.Channel) -> Answer:
    stub = inference_rpc.InferenceServiceStub(channel)
    request = inference_service_pb2.GetServedModelRequest()
    model = stub.GetServedModel(request, timeout=ANSWER_SECONDS).model
    served = f"{model.name}@{model.version}"
    doing = f"serves {served} ({model.backend}, {model.precision})"
    return Answer(doing, {"model": as_object(model), "served": served})


def _object(row: Row) -> dict[str, Any]:
    """As a line of JSON holds it."""
    began = row.process.get("start") if row.process.get("pid") else None
    return {
        "service": row.service.name,
        "state": row.state,
        "ready": row.state == "ready",
        "address": row.address,
        "pid": row.process.get("pid") or None,
        "since": began and datetime.fromtimestamp(began, UTC).isoformat(),
        "log": str(row.log) if row.process else None,
        "doing": row.doing,
        **row.answer.facts,
    }


def _show(rows: list[Row], data: Path) -> None:
    console = Console()
    table = columns("service", "state", "since", "address", "doing")
    for row in rows:
        table.add_row(
            row.service.name,
            Text(row.state, STYLES.get(row.state, "red")),
            _since(row.process),
            printable_text(row.address),
            Text("\n").join(printable_text(line) for line in row.doing.splitlines()),
        )
    console.print(table)
    facts = {name: fact for row in rows for name, fact in row.answer.facts.items()}
    live, served = facts.get("live"), facts.get("served")
    if live and served and live != served:
        told = f"{live} is live in the registry, and {served} is served: inference turns to it, "
        console.print(printable_text(told + "or its log says why not."))
    if logs := [row.log for row in rows if row.process]:
        names = ",".join(log.stem for log in logs)
        console.print(printable_text(f"Logs: {logs[0].parent}/{{{names}}}.log"), soft_wrap=True)
    elif all(row.state == "not there" for row in rows):
        print(f"Nothing runs: {typed('up', data)} starts everything.")


def _since(process: dict[str, Any]) -> str:
    """The time of day, or the day."""
    if not process.get("pid"):
        return ""
    began = datetime.fromtimestamp(process["start"])
    return f"{began:%H:%M}" if began.date() == datetime.now().date() else f"{began:%d %b}"
