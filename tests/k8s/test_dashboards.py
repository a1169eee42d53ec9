"""The dashboards: each query asked of a real Prometheus, which has scraped the real services."""

import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from clients.client import Client
from clients.demo import free_port
from emojinet.v1 import inference_service_pb2 as pb
from emojinet.v1 import inference_service_pb2_grpc as rpc
from services.shared.photographs import installed
from tests.k8s import queries
from tests.k8s.conftest import Program
from tests.k8s.promtool import rule_file
from tests.k8s.rendered import K8S, named, rendered

# What has no series where there is no Kubernetes, nothing was trained, and no source has a quota.
WITHOUT = (
    "kube_",
    "ALERTS",
    "emojinet_source_quota_remaining",
    "emojinet_train_loss",
    "emojinet_train_seconds_total",
    *queries.TO_COME,
)
WINDOW = "10s"  # for a minute
BOARDS = [json.loads(path.read_text()) for path in queries.DASHBOARDS]
Board = dict[str, Any]


def ask(port: int, path: str, **query: str) -> Any:
    url = f"http://127.0.0.1:{port}/api/v1/{path}?" + urllib.parse.urlencode(query)
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)["data"]


def quick(text: str) -> str:
    """A minute in our rules, and whatever Grafana takes for a rate, in seconds."""
    return text.replace("[1m]", f"[{WINDOW}]").replace("$__rate_interval", WINDOW)


@pytest.fixture(scope="module")
def prometheus(
    programs: dict[str, Program], crawled: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """The port of a Prometheus with our rules, which has seen the services at work."""
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    rules = rule_file()
    for group in rules["groups"]:
        group["interval"] = "1s"
    (folder / "rules.yml").write_text(quick(json.dumps(rules)))
    targets = [
        {
            "targets": [f"127.0.0.1:{program.metrics_port}"],
            "labels": {"namespace": "emojinet", "pod": f"emojinet-{name}-a"},
        }
        for name, program in programs.items()
    ]
    scrape = {"job_name": "emojinet", "scrape_interval": "1s", "static_configs": targets}
    config = {"rule_files": ["rules.yml"], "scrape_configs": [scrape]}
    (folder / "prometheus.yml").write_text(json.dumps(config))
    process = subprocess.Popen(
        [
            *("prometheus", f"--config.file={folder}/prometheus.yml"),
            *(f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        _work(programs["inference"], port)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def _work(inference: Program, port: int) -> None:
    """Asks for suggestions until Prometheus knows how they waited; some of the asking is wrong."""
    content = installed()[0].read_bytes()
    end = time.monotonic() + 60
    with Client(inference.address) as client, grpc.insecure_channel(inference.address) as channel:
        stub = rpc.InferenceServiceStub(channel)
        while time.monotonic() < end:
            for _ in range(10):
                client.suggest([content], timeout=5)
            with pytest.raises(grpc.RpcError):
                stub.Suggest(pb.SuggestRequest(), timeout=5)
            time.sleep(0.5)
            try:
                late = ask(port, "query", query="avg_over_time(namespace:emojinet_late:rate[6h])")
                seen = ask(port, "query", query="pod:emojinet_demand:ratio > 0")
            except OSError:
                continue
            if late["result"] and seen["result"]:
                return
    raise AssertionError("Prometheus has seen nothing")


def filled(expression: str) -> str:
    """With what Grafana puts in for its variables."""
    return quick(expression).replace("$namespace", "emojinet").replace("$pod", ".+")


@pytest.mark.system
@pytest.mark.parametrize(("where", "expression"), list(queries.of_dashboards()))
def test_a_panel_shows_what_the_services_tell(where: str, expression: str, prometheus: int) -> None:
    assert "$" not in filled(expression)
    found = ask(prometheus, "query", query=filled(expression))["result"]
    if not any(name.startswith(WITHOUT) for name in queries.metrics(expression)):
        passing = expression.endswith("> 0")  # shown only while something happens
        assert found or passing, where
    if "quantile" not in expression:  # of nothing there is no median
        assert all(each["value"][1] != "NaN" for each in found), where


@pytest.mark.system
def test_every_rule_is_evaluated_without_an_error(prometheus: int) -> None:
    rules = [rule for group in ask(prometheus, "rules")["groups"] for rule in group["rules"]]
    assert {
        rule["name"]: rule.get("lastError", "") for rule in rules if rule["health"] != "ok"
    } == {}
    assert len(rules) == len(list(queries.of_rules()))


@pytest.mark.system
@pytest.mark.parametrize(("name", "query"), list(queries.of_keda()))
def test_what_keda_asks_has_one_value(name: str, query: str, prometheus: int) -> None:
    (found,) = ask(prometheus, "query", query=query)["result"]
    assert float(found["value"][1]) >= 0


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board["uid"])
def test_a_dashboard_can_be_provisioned(board: Board) -> None:
    assert board["uid"].startswith("emojinet-")
    assert "id" not in board  # which a Grafana gives itself
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    variables = {variable["name"] for variable in board["templating"]["list"]}
    assert variables == {"ds", "namespace", "pod"}
    for panel in queries.panels(board):
        assert panel["datasource"] == {"type": "prometheus", "uid": "${ds}"}, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board["uid"])
def test_panels_lie_beside_each_other_and_not_on_each_other(board: Board) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells


def test_dashboards_are_provisioned_by_config_map_too() -> None:
    config = named(rendered("cpu-scaled"), "ConfigMap", "emojinet-dashboards")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert set(config["data"]) == {path.name for path in queries.DASHBOARDS}


def test_the_file_provider_names_a_folder_of_dashboards() -> None:
    path: Path = K8S / "components/monitoring/grafana-provider.yaml"
    assert "dashboards" in path.read_text()
