"""What holds for every command."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer

from clients.cli import app
from services.shared import settings
from tests.clients.commandline import clean, emojinet

HEAVY = {"numpy", "PIL", "pyarrow", "matplotlib", "torch", "openvino", "prometheus_client", "emoji"}


def environment_variables(command: object) -> Iterator[str]:
    """Those of a command's options and of all its sub-commands'."""
    for parameter in getattr(command, "params", []):
        named = parameter.envvar or []
        yield from [named] if isinstance(named, str) else named
    for child in getattr(command, "commands", {}).values():
        yield from environment_variables(child)


def test_the_settings_of_clients_are_those_of_their_options() -> None:
    assert set(environment_variables(typer.main.get_command(app))) == settings.CLIENTS


def test_the_settings_of_services_are_those_of_their_options() -> None:
    from services.crawler import __main__ as crawler
    from services.inference import __main__ as inference
    from services.trainer import __main__ as trainer

    service = typer.Typer()
    service.command()(inference.main)
    commands = [typer.main.get_command(program) for program in (service, crawler.app, trainer.app)]

    assert {name for each in commands for name in environment_variables(each)} == settings.SERVICES


def test_a_setting_that_no_program_knows_is_an_error_that_names_those_there_are() -> None:
    done = emojinet("suggest", "x", EMOJINET_SERVRE="127.0.0.1:50051")

    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert "EMOJINET_SERVRE" in line
    assert "did you mean EMOJINET_SERVER?" in line
    assert "PRECISION" in line


def test_the_settings_of_a_server_do_not_disturb_a_client() -> None:
    settings.check(dict.fromkeys(settings.KNOWN, "x") | {"PATH": "/bin"})


@pytest.mark.parametrize(
    "command", [[], ["suggest"], ["load"], ["model"], ["model", "build-starter"]]
)
def test_every_command_explains_itself(command: list[str]) -> None:
    done = emojinet(*command, "--help")

    assert done.returncode == 0
    assert b"Usage: emojinet" in done.stdout


def test_a_command_that_does_not_exist_is_wrong_use() -> None:
    done = emojinet("sugest")

    assert done.returncode == 2
    assert done.stderr == b"emojinet: No such command 'sugest'. Did you mean 'suggest'?\n"


def test_the_command_line_loads_nothing_but_what_a_plain_install_has() -> None:
    script = "import sys, clients.cli; print(*{name.partition('.')[0] for name in sys.modules})"

    loaded = subprocess.check_output([sys.executable, "-c", script], env=clean(), text=True)

    assert not HEAVY & set(loaded.split())
