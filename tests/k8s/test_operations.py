"""The operators' page: its overlay renders, its commands name what is there."""

import re
import shutil

import pytest
import yaml

from services.shared.queue import OBJECTIVE_SECONDS
from tests.k8s.promtool import rule_file
from tests.k8s.rendered import K8S, OVERLAYS, ROOT, kustomize, named, of_kind, rendered

PAGE = (ROOT / "docs/operations.md").read_text()
ALERTS = [rule["alert"] for g in rule_file()["groups"] for rule in g["rules"] if "alert" in rule]


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_its_entry(alert: str) -> None:
    assert f"\n### {alert}\n" in PAGE


def test_no_entry_is_of_an_alert_that_is_gone() -> None:
    assert re.findall(r"^### (Emojinet\w+)$", PAGE, re.MULTILINE) == ALERTS


def test_an_overlay_of_ones_own_renders() -> None:
    (overlay,) = re.findall(r"```yaml\n# k8s/(overlays/mine)/kustomization.yaml\n", PAGE)
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    folder = K8S / overlay
    folder.mkdir()
    try:
        (folder / "kustomization.yaml").write_text(text)
        objects = kustomize(folder)
    finally:
        shutil.rmtree(folder)
    assert len(of_kind(objects, "ScaledObject")) == 1
    (container,) = named(objects, "Deployment", "emojinet-inference")["spec"]["template"]["spec"][
        "containers"
    ]
    (image,) = (each for each in yaml.safe_load(text)["images"])
    assert container["image"] == f"{image['newName']}:{image['newTag']}"


def test_overlays_and_components_that_it_names_exist() -> None:
    assert set(re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE)) == set(OVERLAYS)
    for path in re.findall(
        r"k8s/(?:overlays|components)/[a-z/.-]+", PAGE.replace("/mine/", "/cpu/")
    ):
        assert (ROOT / path.rstrip("./")).exists(), path
    for component in re.findall(r"`(components/[a-z/-]+)`", PAGE):
        assert (K8S / component).is_dir(), component


def test_what_commands_speak_of_is_applied() -> None:
    objects = rendered("cpu-scaled")
    applied = {f"{each['kind'].lower()}/{each['metadata']['name']}" for each in objects}
    for name in re.findall(r"(?:deployment|service|cronjob)/emojinet-[a-z]+", PAGE):
        assert name in applied, name


def test_the_objective_is_the_one_of_the_code_wherever_it_stands() -> None:
    for place in (f'le="{OBJECTIVE_SECONDS}"', f"`{OBJECTIVE_SECONDS * 1000:.0f}m`"):
        assert place in PAGE
