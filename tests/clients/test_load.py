"""The load tool against a real server that does what the test says."""

import asyncio
import json
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clients.arrivals import Segment, constant
from clients.cli import main
from clients.load import Call, plan, requests, run
from clients.report import Kind, Outcome, Report, percentiles
from clients.throttle import Throttle
from emojinet.v1 import inference_service_pb2 as pb
from services.shared import errors
from tests.clients.commandline import emojinet
from tests.clients.standin import Context, Standin, fail, hold

JPEG = b"\xff\xd8 and so on"
(REQUEST,) = requests([JPEG], random.Random(1))
(NO_IMAGE,) = requests([b"no image"], random.Random(1))


def every(seconds: float, count: int, **options: Any) -> list[Call]:
    return [Call(n * seconds, REQUEST, **options) for n in range(count)]


async def test_every_call_is_sent_and_what_became_of_it_is_counted() -> None:
    def before(number: int, context: Context) -> None:
        if number % 4 == 1:
            fail(context, errors.Overloaded("Others are ahead.", retry_seconds=0.1))
        if number % 4 == 2:
            fail(context, errors.Internal("Id 42."))

    with Standin(before=before) as server:
        report = await run(server.address, every(0.005, 100, deadline=30))

    assert {kind: report.count(kind) for kind in Kind} == {
        Kind.GOOD: 50,
        Kind.REFUSED: 25,
        Kind.FAILED: 25,
        Kind.CANCELLED: 0,
        Kind.THROTTLED: 0,
        Kind.UNSENT: 0,
    }
    assert report.figures()["why"] == {
        "RESOURCE_EXHAUSTED ERROR_REASON_OVERLOADED": 25,
        "INTERNAL ERROR_REASON_INTERNAL": 25,
    }
    assert len(server.requests) == 100  # none was tried again


async def test_calls_go_out_when_they_are_due_though_earlier_ones_are_not_answered() -> None:
    gone = threading.Event()

    def before(number: int, context: Context) -> None:
        if number == 20:
            gone.set()
        assert gone.wait(30)

    with Standin(before=before) as server:
        report = await run(server.address, every(0.01, 20, deadline=30))

    assert report.count(Kind.GOOD) == 20


async def test_latency_counts_from_when_a_call_was_due() -> None:
    def hanging() -> Iterator[Call]:  # is asked for its calls when the load begins
        yield Call(0, REQUEST)
        # The tool itself hangs while the second call is due.
        asyncio.get_running_loop().call_later(0.15, time.sleep, 0.4)
        yield Call(0.3, REQUEST)

    def before(number: int, context: Context) -> None:
        if number == 1:
            time.sleep(0.5)

    with Standin(before=before) as server:
        report = await run(server.address, hanging())

    first, second = report.outcomes
    assert first.latency >= 0.5
    assert second.latency > second.lag > 0.05
    assert report.warning()


async def test_a_call_that_the_tool_comes_to_too_late_is_not_sent_but_confessed() -> None:
    with Standin() as server:
        report = await run(server.address, [Call(0, REQUEST), Call(-5.0, REQUEST)])

    assert report.count(Kind.UNSENT) == 1
    assert len(server.requests) == 1
    assert "never came to 1 call" in report.warning()


async def test_a_deadline_that_passes_is_a_failure_and_one_refused_early_a_refusal() -> None:
    def before(number: int, context: Context) -> None:
        if context.time_remaining() > 5:
            fail(context, errors.DeadlineTooShort("Needs 60 s.", neededMilliseconds="60000"))
        hold(context)

    with Standin(before=before) as server:
        calls = [Call(0, REQUEST, deadline=30), Call(0.1, REQUEST, deadline=1)]
        report = await run(server.address, calls)

    assert [outcome.kind for outcome in report.outcomes] == [Kind.REFUSED, Kind.FAILED]


async def test_who_gives_up_cancels_and_the_server_is_told() -> None:
    left = threading.Semaphore(0)

    def before(number: int, context: Context) -> None:
        hold(context)
        left.release()

    with Standin(before=before) as server:
        report = await run(server.address, every(0.01, 20, deadline=30, cancel=1.0))
        assert all(left.acquire(timeout=10) for _ in range(20))

    assert report.count(Kind.CANCELLED) == 20


async def test_an_answer_with_an_error_for_its_image_is_not_good() -> None:
    with Standin() as server:
        report = await run(server.address, [Call(0, NO_IMAGE)])

    (outcome,) = report.outcomes
    assert outcome.kind is Kind.FAILED
    assert outcome.why == "INVALID_ARGUMENT ERROR_REASON_UNDECODABLE_IMAGE"


async def test_where_nobody_listens_no_load_is_sent() -> None:
    with pytest.raises(errors.ServerUnreachable):
        await run("127.0.0.1:1", [Call(0, REQUEST)], connect_seconds=0.3)


def test_the_same_seed_makes_the_same_calls() -> None:
    def made(seed: int) -> list[Call]:
        rng = random.Random(seed)
        return list(plan(range(20), lambda: rng.choice([b"a", b"b"]), rng))

    assert made(1) == made(1)
    assert made(1) != made(2)


def test_the_share_that_gives_up_does_so_within_the_deadline() -> None:
    calls = list(
        plan(range(2000), lambda: REQUEST, random.Random(1), deadline=2.0, cancelled_share=0.25)
    )

    cancelled = [call.cancel for call in calls if call.cancel is not None]
    assert 400 < len(cancelled) < 600
    assert all(0 <= seconds <= 2 for seconds in cancelled)


def test_requests_hold_the_images_and_the_priority() -> None:
    made = requests([b"a", b"b"], random.Random(1), images_per_call=3, priority=pb.PRIORITY_BULK)

    parsed = [pb.SuggestRequest.FromString(request) for request in made]
    assert {request.priority for request in parsed} == {pb.PRIORITY_BULK}
    assert {len(request.images) for request in parsed} == {3}
    assert {image.content for request in parsed for image in request.images} == {b"a", b"b"}


def outcomes(*latencies: float, lag: float = 0.0) -> list[Outcome]:
    return [Outcome(0.01 * n, lag, x, Kind.GOOD, "") for n, x in enumerate(latencies)]


def test_the_series_adds_up_to_the_whole() -> None:
    calls = [Outcome(at, 0, 0.1, Kind.GOOD, "") for at in constant([Segment(300, 2, 2)])]

    report = Report(calls, 1, 300)

    assert len(report.series()) <= 41
    assert sum(row["good"] for row in report.series()) * report.width == 600


def test_the_tool_says_when_it_was_the_bottleneck() -> None:
    assert Report(outcomes(0.1), 0.1, 1).warning() == ""
    assert "late" in Report(outcomes(0.1, lag=0.5), 0.1, 1).warning()
    assert "core" in Report(outcomes(0.1), 0.95, 1).warning()


def test_percentiles_are_values_that_were_measured() -> None:
    assert percentiles([]) == {}
    assert set(percentiles([1, 2, 30]).values()) <= {1, 2, 30}
    assert percentiles(list(range(1, 1001)))["p99.9"] == 999


def test_the_command_reports_for_people_and_programs(tmp_path: Path) -> None:
    picture = tmp_path / "a.jpg"
    picture.write_bytes(JPEG)

    with Standin() as server:
        done = emojinet(
            "load", picture, "--steps", "40,80", "--duration", "0.5", "--deadline", "30",
            "--arrivals", "constant", "--bulk", "0.5", "--images-per-call", "2",
            "--json", tmp_path / "a.json", "--png", tmp_path / "a.png", server=server.address,
        )  # fmt: skip

    assert done.returncode == 0
    assert b"offered" in done.stdout
    figures = json.loads((tmp_path / "a.json").read_text())
    assert figures["offered"] == figures["good"] == len(server.requests) == 60
    assert {len(request.images) for request in server.requests} == {2}
    assert {request.priority for request in server.requests} == {
        pb.PRIORITY_INTERACTIVE,
        pb.PRIORITY_BULK,
    }
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_figures_can_go_to_stdout_alone(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("0\n0.01\n0.02\n")

    with Standin() as server:
        done = emojinet(
            "load", "--trace", trace, "--deadline", "30", "--json", "-", server=server.address
        )

    assert json.loads(done.stdout)["offered"] == 3
    assert b"offered" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--rate", "0"], "more than 0"),
        (["--rate", "nan"], "rate"),
        (["--rate", "1e9"], "at most"),
        (["--steps", "5,x"], "5,x"),
        (["--ramp", "5"], "more than 0"),
        (["--rate", "0.001", "--duration", "0.1"], "by chance"),
        (["--rate", "5", "--ramp", "5,6"], "only one"),
        (["--trace", "missing.csv"], "missing.csv"),
        (["--cancel", "2"], "--cancel"),
        (["--images-per-call", "65"], "--images-per-call"),
        (["missing.jpg"], "missing.jpg"),
        (["--json", "no/such/folder/a.json"], "no/such/folder"),
    ],
)
def test_wrong_use_is_told_in_one_line(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["load", *arguments])

    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert named in line


async def test_a_throttle_keeps_calls_back_from_a_server_that_refuses_them() -> None:
    def before(number: int, context: Any) -> None:
        fail(context, errors.Overloaded("Others are ahead.", retry_seconds=0.5))

    with Standin(before=before) as server:
        report = await run(server.address, every(0.002, 300, deadline=30), throttle=Throttle())

    kept = report.count(Kind.THROTTLED)
    assert kept > 150
    assert report.count(Kind.REFUSED) == 300 - kept == len(server.requests)
    assert report.figures()["sent"] == 300 - kept
