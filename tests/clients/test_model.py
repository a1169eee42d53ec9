"""`emojinet model` as a process, against a real server, and without one."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.cli import main
from emojinet.v1 import trainer_service_pb2 as pb
from services.shared import errors, registry
from tests.clients import commandline
from tests.clients.trainer_standin import VERSION, TrainerStandin, model

pytestmark = pytest.mark.system

OLDER = model(version="f" * 12, live=False)
BROKEN = model("broken", live=False)
BROKEN.error.CopyFrom(errors.to_proto(errors.BadModel("It is altered.", path="/x")))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with TrainerStandin(models=(model(), OLDER, BROKEN)) as standin:
        yield standin.address


def emojinet(server: str, *arguments: str | Path) -> tuple[int, str, str]:
    """Its exit status and what it said, on a screen wide enough for any table."""
    done = commandline.emojinet("model", *arguments, EMOJINET_TRAINER=server, COLUMNS="140")
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_the_list_is_a_table_or_an_object_a_line(server: str) -> None:
    _, table, _ = emojinet(server, "list")
    _, objects, _ = emojinet(server, "list", "--json")

    rows = [line.split() for line in table.splitlines()]
    assert rows[1][:3] == [f"quick@{VERSION}", "live", "500"]
    assert rows[2][:2] == [f"quick@{'f' * 12}", "500"]
    assert "It is altered." in table.splitlines()[3]
    first, _, last = (json.loads(line) for line in objects.splitlines())
    assert first.keys() == {
        "name", "version", "live", "emoji", "card", "uri", "create_time", "error"
    }  # fmt: skip
    assert last["error"]["reason"] == "ERROR_REASON_BAD_MODEL"


def test_where_there_is_no_model_people_read_how_to_make_one() -> None:
    with TrainerStandin() as standin:
        _, told, _ = emojinet(standin.address, "list")

    assert "emojinet train start --help" in told


def test_a_model_shows_its_card_which_cannot_steer_a_terminal(server: str) -> None:
    _, shown, _ = emojinet(server, "show", "quick")
    _, older, _ = emojinet(server, "show", f"quick@{'f' * 12}", "--json")
    status, _, told = emojinet(server, "show", "quick@000000000000")

    assert f"quick@{VERSION}, live" in shown
    assert "What it knows" in shown
    assert "\x1b" not in shown
    assert json.loads(older)["version"] == "f" * 12
    assert status == 2
    assert told == "emojinet: there is no model quick@000000000000: `emojinet model list`\n"


def test_publishing_and_activating_say_what_is_live_now() -> None:
    with TrainerStandin() as standin:
        published = emojinet(standin.address, "publish", "train-1")
        live = emojinet(standin.address, "publish", "train-1", "--activate")
        turned = emojinet(standin.address, "activate", f"older@{VERSION}")
        _, as_json, _ = emojinet(standin.address, "activate", f"older@{VERSION}", "--json")

    assert published == (0, f"quick@{VERSION} is published, in /registry/quick\n", "")
    assert live == (0, f"quick@{VERSION} is live, in /registry/quick\n", "")
    assert turned == (0, f"older@{VERSION} is live, in /registry/older\n", "")
    assert json.loads(as_json)["live"] is True
    assert standin.requests == [
        pb.PublishModelRequest(run="train-1"),
        pb.PublishModelRequest(run="train-1", activate=True),
        *[pb.ActivateModelRequest(name="older", version=VERSION)] * 2,
    ]


def test_a_model_is_verified_without_a_service(tiny: Path, tmp_path: Path) -> None:
    staged, root = tmp_path / "staged", tmp_path / "registry"
    shutil.copytree(tiny, staged)
    which = registry.publish(root, staged)
    folder = registry.folder(root, which)
    named = "@".join(which)

    good: list[list[str | Path]] = [[folder], [named, "--registry", root]]
    bad: list[list[str | Path]] = [*good, [tmp_path], ["x@y"]]
    for arguments in good:
        status, told, _ = emojinet("", "verify", *arguments)
        assert (status, told) == (0, f"{named} in {folder} is whole: 5 emoji\n")
    weights = folder / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    for arguments in bad:
        status, told, why = emojinet("", "verify", *arguments)
        assert (status, told) == (1, "")
        assert len(why.splitlines()) == 1
        assert "Traceback" not in why


@pytest.mark.parametrize("arguments", [["list"], ["show", "x"], ["publish", "x"]])
def test_a_server_that_is_not_there_is_told_with_how_to_start_one(arguments: list[str]) -> None:
    status, out, told = emojinet("127.0.0.1:1", *arguments)

    assert (status, out) == (1, "")
    (line,) = told.splitlines()
    assert "python -m services.trainer" in line


def test_a_model_is_activated_by_name_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["model", "activate", "quick"])

    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "quick@0123456789ab" in line


@pytest.mark.parametrize("verb", ["list", "show", "verify", "publish", "activate"])
def test_every_command_explains_itself(verb: str) -> None:
    status, told, _ = emojinet("", verb, "--help")

    assert status == 0
    assert f"Usage: emojinet model {verb}" in told
