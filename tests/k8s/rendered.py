"""What `kubectl apply -k` would apply."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
BINARIES = Path(sys.executable).parent
OVERLAYS = sorted(path.name for path in (K8S / "overlays").glob("[!.]*"))
SERVICES = ("inference", "crawler", "trainer")
# What a user's own overlay may add to one of ours.
ADDITIONS: dict[str, tuple[str, ...]] = {
    "cpu+keda": ("many-nodes", "monitoring", "keda"),
    "cpu+keda+to-zero": ("many-nodes", "monitoring", "keda", "keda/to-zero"),
    "cpu+slack": ("slack",),
    "cpu+tls": ("tls",),
    "cpu+tls+clients": ("tls", "tls/clients"),
    "dev+network-policies": ("network-policies",),
}
EVERY = (*OVERLAYS, *ADDITIONS)
Object = dict[str, Any]


def kustomize(folder: Path) -> list[Object]:
    """The objects of a kustomization."""
    kubectl = str(BINARIES / "kubectl")
    done = subprocess.run(
        [kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [found for found in yaml.safe_load_all(done.stdout) if found]


@cache
def _rendered(name: str) -> str:
    overlay = K8S / "overlays" / name.partition("+")[0]
    if name in OVERLAYS:
        return json.dumps(kustomize(overlay))
    # Beside the others, as kustomize takes no absolute path; another program may test as well.
    with TemporaryDirectory(prefix=".test-", dir=K8S / "overlays") as folder:
        own = Path(folder)
        components = [f"../../components/{part}" for part in ADDITIONS[name]]
        asked = {"resources": [f"../{overlay.name}"], "components": components}
        (own / "kustomization.yaml").write_text(json.dumps(asked))
        return json.dumps(kustomize(own))


def rendered(name: str) -> list[Object]:
    """The objects of an overlay, or of one of `ADDITIONS`."""
    found: list[Object] = json.loads(_rendered(name))
    return found


def of_kind(objects: Sequence[Object], *kinds: str) -> list[Object]:
    return [each for each in objects if each["kind"] in kinds]


def named(objects: Sequence[Object], kind: str, name: str) -> Object:
    (found,) = (e for e in of_kind(objects, kind) if e["metadata"]["name"] == name)
    return found


def pods(objects: Sequence[Object]) -> Iterator[tuple[str, Object]]:
    """The pod templates, by the names of what makes the pods."""
    for each in of_kind(objects, "Deployment", "CronJob"):
        made = each["spec"]
        if each["kind"] == "CronJob":
            made = made["jobTemplate"]["spec"]
        yield each["metadata"]["name"], made["template"]


def containers(pod: Object) -> list[Object]:
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]
