"""Whether an API server would take what we apply: strict schemas, and names that lead somewhere."""

import json
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest

from tests.k8s.rendered import EVERY, OVERLAYS, Object, containers, named, of_kind, pods, rendered

SCHEMAS = {
    path.stem: json.loads(path.read_text()) for path in Path(__file__).parent.glob("schemas/*.json")
}
VERSIONS = ("1.30", "1.37")  # the oldest that has all that we use without feature gates, the newest


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", EVERY)
def test_every_object_is_as_its_kind_says(overlay: str, version: str) -> None:
    for each in rendered(overlay):
        if schema := SCHEMAS.get(each["kind"]):
            jsonschema.validate(each, schema)
        else:
            kubernetes_validate.validate(each, version, strict=True)


def test_a_misspelt_field_would_be_found() -> None:
    hpa = named(rendered("cpu-scaled"), "HorizontalPodAutoscaler", "emojinet-inference")
    hpa["spec"]["metrics"][0]["pods"]["target"]["averageValu"] = "1"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(hpa, VERSIONS[-1], strict=True)
    monitor = named(rendered("cpu-scaled"), "PodMonitor", "emojinet")
    monitor["spec"]["podMetricsEndpoint"] = []
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(monitor, SCHEMAS["PodMonitor"])


@pytest.mark.parametrize("overlay", EVERY)
def test_everything_is_in_our_namespace(overlay: str) -> None:
    for each in rendered(overlay):
        if each["kind"] != "Namespace":
            assert each["metadata"]["namespace"] == "emojinet", each["metadata"]["name"]


@pytest.mark.parametrize("overlay", EVERY)
def test_nothing_is_there_twice(overlay: str) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in rendered(overlay)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("overlay", EVERY)
def test_what_a_pod_mounts_is_there_or_may_be_missing(overlay: str) -> None:
    objects = rendered(overlay)
    claims = {each["metadata"]["name"] for each in of_kind(objects, "PersistentVolumeClaim")}
    settings = {each["metadata"]["name"] for each in of_kind(objects, "ConfigMap")}
    for name, pod in pods(objects):
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        for container in containers(pod):
            assert {m["name"] for m in container["volumeMounts"]} <= set(volumes), name
            assert {s["configMapRef"]["name"] for s in container.get("envFrom", ())} <= settings
        for volume in volumes.values():
            if claim := volume.get("persistentVolumeClaim"):
                assert claim["claimName"] in claims, name
            for source in volume.get("projected", {}).get("sources", ()):
                assert source["secret"]["optional"] is True, name


@pytest.mark.parametrize("overlay", EVERY)
def test_every_selector_finds_exactly_its_own_pods(overlay: str) -> None:
    objects = rendered(overlay)
    templates = dict(pods(objects))
    for each in of_kind(objects, "Service", "PodDisruptionBudget", "Deployment"):
        spec = each["spec"]
        wanted = spec["selector"] if each["kind"] == "Service" else spec["selector"]["matchLabels"]
        found = [name for name, pod in templates.items() if _matches(pod, wanted)]
        assert found == [each["metadata"]["name"]], each["kind"]


@pytest.mark.parametrize("overlay", EVERY)
def test_ports_that_are_named_exist(overlay: str) -> None:
    objects = rendered(overlay)
    templates = dict(pods(objects))
    for service in of_kind(objects, "Service"):
        (container,) = templates[service["metadata"]["name"]]["spec"]["containers"]
        ports = {port["name"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_asks_for_custom_kinds_only_where_it_says_so(overlay: str) -> None:
    custom = {each["kind"] for each in rendered(overlay) if "." in each["apiVersion"].split("/")[0]}
    custom &= set(SCHEMAS)
    assert custom == (
        {"PodMonitor", "PrometheusRule"} if overlay in ("cpu-scaled", "gpu") else set()
    )


def _matches(pod: Object, wanted: dict[str, str]) -> bool:
    return wanted.items() <= pod["metadata"]["labels"].items()
