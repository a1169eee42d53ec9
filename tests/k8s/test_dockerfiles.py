"""The images' recipes, and the script that has them made: against each other and the manifests."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.k8s.rendered import EVERY, ROOT, SERVICES, containers, pods, rendered
from tests.k8s.test_policies import VERSION

DOCKERFILES = {
    **{name: ROOT / f"services/{name}/Dockerfile" for name in SERVICES},
    "web": ROOT / "clients/web/Dockerfile",
}
STUB = Path(__file__).with_name("stub_builder.py")
BUILDERS = ("docker", "podman", "buildah")


def said(name: str, instruction: str) -> list[str]:
    """The arguments of each such instruction."""
    text = DOCKERFILES[name].read_text().replace("\\\n", " ")
    return re.findall(rf"^{instruction} (.+)$", text, re.MULTILINE)


def made(folder: Path, verb: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [ROOT / "k8s/images.sh", verb],
        env={"PATH": os.environ["PATH"], "BUILDER": str(STUB), "ASKED": str(folder / "asked")}
        | settings,
        capture_output=True,
        text=True,
        check=False,
    )


def asked(folder: Path) -> list[str]:
    return (folder / "asked").read_text().splitlines()


@pytest.mark.parametrize("overlay", EVERY)
def test_every_image_has_a_recipe_which_runs_as_the_manifest_says(overlay: str) -> None:
    for _, pod in pods(rendered(overlay)):
        context = pod["spec"]["securityContext"]
        for container in containers(pod):
            name = container["image"].rpartition(":")[0].removeprefix("emojinet-")
            assert said(name, "USER") == [f"{context['runAsUser']}:{context['runAsGroup']}"]
            ports = {str(port["containerPort"]) for port in container.get("ports", ())}
            assert ports <= set(said(name, "EXPOSE")[0].split())
            program = (container.get("command") or json.loads(said(name, "ENTRYPOINT")[0]))[0]
            assert program in ("python", "emojinet")


def test_no_service_is_without_a_recipe_and_no_recipe_without_a_service() -> None:
    found = {path for path in ROOT.glob("*/**/Dockerfile") if ".venv" not in path.parts}
    assert found == set(DOCKERFILES.values())


def test_what_recipes_share_is_the_same_in_all_and_so_made_once() -> None:
    # As far as the first stage that is an image's own.
    shared = {
        path.read_text().partition("ARG BASE")[2].partition("\n\n# --")[0]
        for path in DOCKERFILES.values()
    }
    assert len(shared) == 1
    assert "FROM python AS tools" in shared.pop()


def test_all_images_are_built_and_tagged_with_the_version(tmp_path: Path) -> None:
    done = made(tmp_path, "build")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(asked(tmp_path)) == len(DOCKERFILES)
    for line, (name, path) in zip(asked(tmp_path), sorted(DOCKERFILES.items()), strict=True):
        assert line.startswith(f"build --build-arg VERSION={VERSION} --build-arg REVISION=")
        assert "--build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu " in line
        file = path.relative_to(ROOT)
        assert line.endswith(f" --file {file} --tag emojinet-{name}:{VERSION} .")


def test_for_gpus_two_have_pytorch_and_another_tag(tmp_path: Path) -> None:
    assert made(tmp_path, "build", ACCELERATOR="cuda").returncode == 0
    inference, trainer = asked(tmp_path)
    for line in (inference, trainer):
        assert "TORCH_INDEX=https://download.pytorch.org/whl/cu" in line
        assert f":{VERSION}-cuda ." in line
    assert "EXTRAS=torch" in inference
    assert "EXTRAS" not in trainer


def test_what_is_said_of_base_index_and_builder_is_passed_on(tmp_path: Path) -> None:
    settings = {
        "IMAGES": "web",
        "BASE": "debian:own",
        "TORCH_INDEX": "",
        "FLAGS": "--pull-never -q",
    }
    assert made(tmp_path, "build", **settings).returncode == 0
    (line,) = asked(tmp_path)
    assert " --build-arg BASE=debian:own " in line
    assert " --build-arg TORCH_INDEX= " in line
    assert " --pull-never -q " in line


def test_images_are_pushed_by_their_version_to_where_they_are_wanted(tmp_path: Path) -> None:
    assert made(tmp_path, "push", IMAGES="web", REGISTRY="registry.example/team").returncode == 0
    there = f"registry.example/team/emojinet-web:{VERSION}"
    assert asked(tmp_path) == [f"tag emojinet-web:{VERSION} {there}", f"push {there}"]


@pytest.mark.parametrize(
    ("verb", "settings", "told"),
    [
        ("push", {}, "REGISTRY=registry.example/team"),
        ("build", {"ACCELERATOR": "tpu"}, "ACCELERATOR is tpu; it would be cpu or cuda"),
        ("build", {"IMAGES": "slack"}, "there is no image called slack"),
        ("build", {"BROKEN": "1"}, "works here; install one, or name it by BUILDER="),
        ("bild", {}, "images.sh build|push"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(
    tmp_path: Path, verb: str, settings: dict[str, str], told: str
) -> None:
    done = made(tmp_path, verb, **settings)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "asked").exists()
