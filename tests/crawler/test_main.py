"""The crawler as a process."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from clients.demo import free_port
from emojinet.v1 import crawler_service_pb2 as pb
from emojinet.v1 import state_pb2 as states
from tests.crawler.running import Crawler, collect, funnel
from tests.standin.child import Child
from tests.standin.world import World

pytestmark = pytest.mark.system

STATUS = health_pb2.HealthCheckResponse


def run(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program, which should end by itself."""
    command = [sys.executable, "-m", "services.crawler", "--port=0"]
    return subprocess.run(
        [*command, f"--metrics-port={free_port()}", *flags],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=30,
    )


def health(crawler: Crawler) -> int:
    stub = health_pb2_grpc.HealthStub(crawler.channel)
    request = health_pb2.HealthCheckRequest()
    status: int = stub.Check(request, wait_for_ready=True, timeout=30).status
    return status


@pytest.mark.parametrize(
    ("environment", "flags", "told"),
    [
        ({"EMOJINET_METRIC_PORT": "1"}, [], "did you mean EMOJINET_METRICS_PORT"),
        ({}, ["--data=/dev/null"], "/dev/null/crawler cannot be used: Not a directory"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(
    environment: dict[str, str], flags: list[str], told: str
) -> None:
    ended = run(*flags, **environment)
    assert ended.returncode == 1
    assert [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_process_lives_from_not_ready_over_sigterm_to_the_next_that_goes_on(
    tmp_path: Path,
) -> None:
    with Child("--seed=3", "--posts=300", "--edge-px=64", "--hosts=2", "--latency=0.2") as standin:
        token = tmp_path / "token"
        token.write_text("valid")
        source = pb.InstagramSource(base_url=f"{standin.base_url}/v1", token_file=str(token))
        with Crawler(tmp_path) as crawler:
            assert health(crawler) == STATUS.NOT_SERVING
            assert crawler.is_up()
            assert health(crawler) == STATUS.SERVING
            name = crawler.stub.StartCrawl(collect(instagram=source), timeout=10).crawl.name
            second = run(f"--data={tmp_path}")
            assert second.returncode == 1
            assert "Another crawler works on" in second.stderr
            assert "Traceback" not in second.stderr
            crawl = crawler.stub.GetCrawl(pb.GetCrawlRequest(name=name), timeout=10).crawl
            assert crawl.state == states.STATE_RUNNING
            began = time.monotonic()
            crawler.process.terminate()
            assert crawler.process.wait(20) == 0
            assert time.monotonic() - began < 2
        standin.set(**{"cdn.latency": 0.0})
        with Crawler(tmp_path) as crawler:
            assert crawler.is_up()
            for message in crawler.stub.WatchCrawl(pb.WatchCrawlRequest(name=name), timeout=60):
                crawl = message.crawl
            assert crawl.state == states.STATE_SUCCEEDED
            kept = funnel(crawl, "post")["kept"]
            assert funnel(crawl, "image").total() == kept > 100
            assert crawler.freeze(name, "frozen").state == states.STATE_SUCCEEDED


def test_a_live_source_is_checked_from_the_command_line(tmp_path: Path) -> None:
    recording = tmp_path / "recording.jsonl"
    with Child("--seed=3", "--posts=100", "--edge-px=64", "--past=0", "--rate=50") as standin:
        program = [sys.executable, "-m", "services.crawler", "--allow-addresses=127.0.0.0/8"]
        server = f"--jetstream={standin.base_url.replace('http', 'ws')}"
        rest = [f"--cdn={standin.base_url}", "--for=5s", f"--record={recording}"]
        done = subprocess.run(
            [*program, "check", "bluesky", server, *rest],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    # The stand-in's events are of a summer long gone, and nothing else is to be found fault with.
    broken = [line for line in done.stdout.splitlines() if line.startswith("  broken")]
    assert [line.split(":")[0].split(maxsplit=1)[1] for line in broken] == ["events are recent"]
    assert done.returncode == 1
    recorded = recording.read_text()
    assert len(recorded.splitlines()) > 20
    authors = {post.author.did for post in World(seed=3, posts=100, edge_px=64).truth()}
    assert [did for did in authors if did in recorded] == []
