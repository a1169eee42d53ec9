"""What a kubelet does with a container, on this machine: as the manifest says, and as it may.

Its image's files are read-only, its user has no capability and gets none, and what is written is
written to the volumes. Addresses and ports are of the test.
"""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from clients.demo import free_port
from tests.k8s.rendered import Object, containers, of_kind, pods, rendered
from tests.system.images import Mounted

# In a mount namespace of its own, so nothing is left behind.
CONFINE = """
set -e
root=$1 user=$2
shift 2
mount --bind "$root" "$root"
for each in dev proc sys; do mount --rbind "/$each" "$root/$each"; done
while [ "$1" != -- ]; do
    mkdir -p "$root/$2"
    mount --bind "$1" "$root/$2"
    mount -o "remount,bind,$3" "$root/$2"
    shift 3
done
shift
mount -o remount,bind,ro "$root"
exec chroot "$root" setpriv --reuid "$user" --regid "$user" --clear-groups \
    --bounding-set=-all --inh-caps=-all --no-new-privs -- "$@"
"""
USER = 10_001
Volumes = Mapping[str, Path]


def made_volumes(folder: Path) -> dict[str, Path]:
    """Under the names that they have in manifests; the user's, as a kubelet makes them."""
    made = {name: folder / name for name in ("data", "registry", "secrets", "tmp")}
    for path in made.values():
        path.mkdir()
        shutil.chown(path, USER, USER)
    return made


def listening() -> tuple[str, dict[str, str]]:
    """An address of this machine alone, and the settings that have a server listen there."""
    port, metrics = free_port(), free_port()
    settings = {"HOST": "127.0.0.1", "PORT": port, "METRICS_PORT": metrics}
    return f"127.0.0.1:{port}", {f"EMOJINET_{k}": str(v) for k, v in settings.items()}


@contextmanager
def started(
    image: Mounted, name: str, volumes: Volumes, *flags: str, **environment: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """The process of a container of the image's Deployment; it is ended in the end."""
    objects = rendered("cpu")
    pod = dict(pods(objects))[f"emojinet-{image.name}"]
    (asked,) = (each for each in containers(pod) if each["name"] == name)
    user = pod["spec"]["securityContext"]["runAsUser"]
    own = {e["name"]: e["value"] for e in asked.get("env", ())}
    told = {k: v for source in asked.get("envFrom", ()) for k, v in settings(objects, source)}
    command = asked.get("command") or [*image.config["Entrypoint"], *asked.get("args", ()), *flags]
    process = subprocess.Popen(
        [
            *("unshare", "--mount", "sh", "-c", CONFINE, "sh", str(image.root)),
            *(str(user), *mounts(asked, volumes), "--", *command),
        ],
        env={**image.environment, **told, **own, **environment},
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(45)


def settings(objects: list[Object], source: Object) -> list[tuple[str, str]]:
    """Those of a ConfigMap."""
    name = source["configMapRef"]["name"]
    (found,) = (c for c in of_kind(objects, "ConfigMap") if c["metadata"]["name"] == name)
    return list(found["data"].items())


def mounts(asked: Object, volumes: Volumes) -> Iterator[str]:
    """From where, to where, and how, for each volume that the test has."""
    for mount in asked["volumeMounts"]:
        if mount["name"] in volumes:
            how = "ro" if mount.get("readOnly") else "rw"
            yield from (str(volumes[mount["name"]]), mount["mountPath"], how)
