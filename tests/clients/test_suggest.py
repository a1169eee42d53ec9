"""`emojinet suggest` as a process, against a real server."""

import csv
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pyarrow.parquet  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients import pictures
from clients.answers import Answer, write_json
from clients.cli import main
from clients.suggest import Look
from emojinet.v1 import inference_service_pb2 as pb
from services.shared import errors
from tests.clients.commandline import COMMAND, clean, emojinet
from tests.clients.standin import Context, Standin, hold, pizza

JPEG = b"\xff\xd8 and so on"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with Standin() as standin:
        yield standin.address


def lines(done: "subprocess.CompletedProcess[bytes]") -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.decode().split("\n")[:-1]]


def picture(path: Path, content: bytes = JPEG) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


@contextmanager
def nobody() -> Iterator[str]:
    """An address at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def test_people_see_emoji_names_and_probabilities_under_the_path(
    server: str, tmp_path: Path
) -> None:
    path = picture(tmp_path / "a.jpg")

    done = emojinet("suggest", path, server=server)

    assert done.returncode == 0
    first, pizza, *_ = done.stdout.decode().splitlines()
    assert first == f"{path}  40 ms, of which waited 5.0 ms"
    assert pizza.split() == ["🍕", "75.0%", "━" * 15, "pizza"]
    assert done.stderr == b""


def test_programs_get_one_object_a_line(server: str, tmp_path: Path) -> None:
    good, bad = picture(tmp_path / "a.jpg"), picture(tmp_path / "b.jpg", b"no image")

    done = emojinet("suggest", "--json", good, bad, server=server)

    assert lines(done) == [
        {
            "path": good,
            "model": "standin@0123456789ab",
            "suggestions": [
                {"emoji": "🍕", "name": "pizza", "probability": 0.75},
                {"emoji": "❤️", "name": "red heart", "probability": 0.125},
                {"emoji": "🐕", "name": "dog", "probability": 0.0625},
            ],
            "timing": {
                "decode_wait_seconds": 0.0,
                "decode_seconds": 0.0,
                "queue_wait_seconds": 0.005,
                "compute_seconds": 0.0,
                "total_seconds": 0.04,
                "batch_size": 1,
            },
        },
        {
            "path": bad,
            "error": {
                "code": "INVALID_ARGUMENT",
                "reason": "ERROR_REASON_UNDECODABLE_IMAGE",
                "message": "The bytes are no image.",
            },
        },
    ]
    assert done.returncode == 1


def test_answers_come_in_the_order_of_the_pictures_though_several_are_under_way(
    tmp_path: Path,
) -> None:
    together = threading.Barrier(4)  # passes only when four calls are there at the same time
    names = [picture(tmp_path / f"{n}.jpg", JPEG + bytes([n])) for n in range(8)]

    def look(content: bytes) -> pb.SuggestResult:
        together.wait(timeout=30)
        time.sleep(0.05 * (8 - content[-1]))
        return pizza(content)

    with Standin(look) as server:
        done = emojinet("suggest", "--json", "--timeout", "60", *names, server=server.address)

    assert [line["path"] for line in lines(done)] == names
    assert done.returncode == 0


def test_a_folder_is_all_its_files_sorted_but_hidden_ones(server: str, tmp_path: Path) -> None:
    for name in ("b.jpg", "a.txt", "c/d.jpg", "c/.e.jpg", ".f/g.jpg", ".h.jpg"):
        picture(tmp_path / "photos" / name)
    (tmp_path / "photos" / "c" / "loop").symlink_to("..")

    done = emojinet("suggest", "--json", f"{tmp_path}/photos/", server=server)

    assert [line["path"] for line in lines(done)] == [
        f"{tmp_path}/photos/{name}" for name in ("a.txt", "b.jpg", "c/d.jpg")
    ]
    assert done.returncode == 0


def test_what_cannot_be_read_is_an_error_of_that_picture_alone(server: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "self.jpg").symlink_to("self.jpg")
    with (tmp_path / "big.jpg").open("wb") as big:
        big.truncate(pictures.LIMIT_BYTES + 1)
    picture(tmp_path / "empty.jpg", b"")
    names = ["missing.jpg", "pipe.jpg", "self.jpg", "big.jpg", "empty.jpg", "empty.jpg/x"]

    done = emojinet(
        "suggest", "--json", *(str(tmp_path / name) for name in names), "/dev/zero", server=server
    )

    assert [(line["error"]["code"], line["error"]["reason"]) for line in lines(done)] == [
        ("NOT_FOUND", "ERROR_REASON_FILE_NOT_FOUND"),
        ("PERMISSION_DENIED", "ERROR_REASON_FILE_UNREADABLE"),
        ("PERMISSION_DENIED", "ERROR_REASON_FILE_UNREADABLE"),
        ("INVALID_ARGUMENT", "ERROR_REASON_IMAGE_TOO_LARGE"),
        ("INVALID_ARGUMENT", "ERROR_REASON_UNDECODABLE_IMAGE"),  # by the stand-in
        ("NOT_FOUND", "ERROR_REASON_FILE_NOT_FOUND"),
        ("PERMISSION_DENIED", "ERROR_REASON_FILE_UNREADABLE"),
    ]
    assert done.returncode == 1


def test_a_file_of_exactly_the_limit_is_sent(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.jpg", JPEG.ljust(pictures.LIMIT_BYTES))

    with Standin() as server:
        done = emojinet("suggest", path, server=server.address)

    assert done.returncode == 0
    assert len(server.requests[0].images[0].content) == pictures.LIMIT_BYTES


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_any_name_a_file_can_have_can_be_written(form: str, server: str, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9\n\x1b[31m\xe2\x80\xa8\xf0\x9f\x8d\x95.jpg"
    Path(os.fsdecode(name)).write_bytes(JPEG)

    done = emojinet("suggest", "--format", form, name, server=server)

    assert (done.returncode, done.stderr) == (0, b"")
    if form == "json":
        assert os.fsencode(lines(done)[0]["path"]) == name
    if form == "table":
        assert b"\x1b[31m" not in done.stdout


@given(path=st.text(st.characters(exclude_categories=()), min_size=1))
def test_a_line_of_json_is_one_line_to_every_reader(path: str) -> None:
    error = pb.SuggestResult(error=errors.to_proto(errors.FileNotFound("There is no such file.")))
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")

    write_json([Answer(path, pb.SuggestResponse(results=[error]))], out)

    out.seek(0)
    (line,) = out.read().splitlines()
    assert json.loads(line)["path"] == path


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_an_output_without_unicode_gets_escapes(form: str, server: str, tmp_path: Path) -> None:
    path = picture(tmp_path / "a.jpg")

    done = emojinet("suggest", "--format", form, path, server=server, PYTHONIOENCODING="ascii")

    assert (done.returncode, done.stderr) == (0, b"")
    assert b"pizza" in done.stdout
    if form == "json":
        assert lines(done)[0]["suggestions"][0]["emoji"] == "🍕"


def test_csv_has_a_row_for_each_suggestion_and_for_each_error(server: str, tmp_path: Path) -> None:
    good = picture(tmp_path / "a.jpg")

    done = emojinet("suggest", "--format", "csv", good, "missing.jpg", server=server)

    rows = list(csv.DictReader(done.stdout.decode().splitlines()))
    assert [(row["path"], row["rank"], row["emoji"], row["probability"]) for row in rows] == [
        (good, "1", "🍕", "0.75"),
        (good, "2", "❤️", "0.125"),
        (good, "3", "🐕", "0.0625"),
        ("missing.jpg", "", "", ""),
    ]
    assert rows[3]["reason"] == "ERROR_REASON_FILE_NOT_FOUND"


def test_parquet_has_the_rows_of_csv(server: str, tmp_path: Path) -> None:
    good, out = picture(tmp_path / "a.jpg"), tmp_path / "out.parquet"

    done = emojinet(
        "suggest", "--format", "parquet", "--output", out, good, "caf\udce9.jpg", server=server
    )

    table = pyarrow.parquet.read_table(out).to_pylist()
    assert [row["emoji"] for row in table] == ["🍕", "❤️", "🐕", None]
    assert [row["code"] for row in table] == [None, None, None, "NOT_FOUND"]
    assert (done.returncode, done.stdout) == (1, b"")


def test_a_picture_without_any_suggestion_is_still_answered(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.jpg")

    def look(content: bytes) -> pb.SuggestResult:
        return pb.SuggestResult(suggestions=pb.Suggestions())

    with Standin(look) as server:
        as_csv = emojinet("suggest", "--format", "csv", path, server=server.address)
        as_json = emojinet("suggest", "--json", path, server=server.address)

    assert path in as_csv.stdout.decode()
    assert lines(as_json)[0]["suggestions"] == []
    assert as_csv.returncode == as_json.returncode == 0


def test_what_is_asked_for_is_what_the_server_gets(tmp_path: Path) -> None:
    with Standin() as server:
        emojinet(
            "suggest", "-", "--top", "7", "--min-probability", "0.25", "--server", server.address,
            stdin=JPEG,
        )  # fmt: skip

    (request,) = server.requests
    assert (request.max_suggestions, request.min_probability) == (7, 0.25)
    assert [image.content for image in request.images] == [JPEG]


class Web(BaseHTTPRequestHandler):
    """Gives a picture, and everything that can go wrong with one."""

    def do_GET(self) -> None:
        kind = self.path.split("/")[1]
        self.send_response({"missing": 404, "moved": 302, "away": 302}.get(kind, 200))
        if kind in ("moved", "away"):
            self.send_header("Location", "/good/" if kind == "moved" else "file:///etc/passwd")
        self.end_headers()
        if kind == "good":
            self.wfile.write(JPEG)
        while kind in ("drip", "endless"):
            try:
                self.wfile.write(b"x" if kind == "drip" else bytes(1 << 20))
            except OSError:
                break
            time.sleep(0.02 if kind == "drip" else 0)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.socket.close()


def test_urls_are_fetched_in_time_or_say_why_not(server: str, web: str) -> None:
    urls = [
        f"{web}/good/café ☕.jpg?größe=1",
        f"{web}/moved/",
        f"{web}/missing/",
        f"{web}/away/",
        f"{web}/drip/",
        f"{web}/endless/",
        "ftp://127.0.0.1/a.jpg",
        "file:///etc/passwd",
        "http://[/",
        "http://",
    ]

    done = emojinet("suggest", "--json", "--timeout", "5", *urls, server=server)

    assert [line["path"] for line in lines(done)] == urls
    assert [line.get("error", {}).get("reason") for line in lines(done)] == [
        None,
        None,
        "ERROR_REASON_URL_FAILED",
        "ERROR_REASON_URL_FAILED",
        "ERROR_REASON_URL_FAILED",
        "ERROR_REASON_IMAGE_TOO_LARGE",
        "ERROR_REASON_URL_REFUSED",
        "ERROR_REASON_URL_REFUSED",
        "ERROR_REASON_URL_FAILED",
        "ERROR_REASON_URL_FAILED",
    ]


def test_without_a_server_people_read_once_how_to_start_one(tmp_path: Path) -> None:
    names = [picture(tmp_path / f"{n}.jpg") for n in range(30)]

    with nobody() as address:
        done = emojinet("suggest", *names, server=address)

    assert done.returncode == 1
    assert done.stdout == b""
    (line,) = done.stderr.decode().splitlines()
    assert "python -m services.inference" in line
    assert "--local" in line


def test_a_server_that_is_not_there_for_one_picture_is_not_asked_for_the_next(
    tmp_path: Path,
) -> None:
    asked = []

    def ask(content: bytes) -> pb.SuggestResponse:
        asked.append(content)
        raise errors.ServerUnreachable("Nobody answers.")

    look = Look(ask, 1.0)
    codes = [look(picture(tmp_path / name)).results[0].error.code for name in ("a.jpg", "b.jpg")]

    assert codes == [grpc.StatusCode.UNAVAILABLE.value[0]] * 2
    assert asked == [JPEG]


def test_without_a_server_programs_still_get_every_path(tmp_path: Path) -> None:
    names = [picture(tmp_path / f"{n}.jpg") for n in range(30)]

    with nobody() as address:
        done = emojinet("suggest", "--json", *names, "missing.jpg", server=address)

    assert [line["path"] for line in lines(done)] == [*names, "missing.jpg"]
    assert [line["error"]["code"] for line in lines(done)] == [*["UNAVAILABLE"] * 30, "NOT_FOUND"]
    assert len(done.stderr.splitlines()) == 1


def test_a_proxy_for_the_web_is_not_asked_for_a_server_on_this_machine(
    server: str, tmp_path: Path
) -> None:
    done = emojinet(
        "suggest", picture(tmp_path / "a.jpg"), server=server, http_proxy="http://127.0.0.1:1"
    )

    assert done.returncode == 0


def test_a_server_that_breaks_the_contract_harms_nobody(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.jpg")

    class Mute(Standin):
        def Suggest(self, request: pb.SuggestRequest, context: Context) -> pb.SuggestResponse:
            return pb.SuggestResponse()

    with Mute() as server:
        done = emojinet("suggest", "--json", path, server=server.address)

    assert lines(done)[0]["error"]["code"] == "INTERNAL"


def test_a_call_that_takes_too_long_is_an_error_of_its_picture(tmp_path: Path) -> None:
    def before(number: int, context: Context) -> None:
        hold(context)

    with Standin(before=before) as server:
        done = emojinet("suggest", "--json", "-", "--timeout", "0.3", server=server.address)

    assert lines(done)[0]["error"]["code"] == "DEADLINE_EXCEEDED"
    assert done.returncode == 1


@pytest.mark.parametrize("form", ["table", "json", "csv"])
@pytest.mark.parametrize("many", [1, 100])
def test_a_reader_that_leaves_early_is_no_error_worth_a_word(
    form: str, many: int, server: str, tmp_path: Path
) -> None:
    names = [picture(tmp_path / f"{n}.jpg") for n in range(many)]
    command = subprocess.Popen(
        [*COMMAND, "suggest", "--format", form, *names],
        env=clean(EMOJINET_SERVER=server),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with command:
        assert command.stdout
        assert command.stderr
        command.stdout.close()
        assert command.stderr.read() == b""


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_a_full_disk_is_told_in_one_line(form: str, server: str, tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, "suggest", "--format", form, picture(tmp_path / "a.jpg")],
            env=clean(EMOJINET_SERVER=server),
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )

    assert done.returncode == 1
    assert done.stderr == b"emojinet: [Errno 28] No space left on device\n"


def test_ctrl_c_ends_it_at_once_and_quietly(tmp_path: Path) -> None:
    arrived = threading.Event()

    def before(number: int, context: Context) -> None:
        arrived.set()
        hold(context)

    names = [picture(tmp_path / f"{n}.jpg") for n in range(20)]
    # As in a terminal: who runs these tests in the background passes on a SIGINT that is ignored.
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from clients.cli import main; main()"
    )
    with Standin(before=before) as server:
        command = subprocess.Popen(
            [sys.executable, "-c", script, "suggest", "--timeout", "600", *names],
            env=clean(EMOJINET_SERVER=server.address),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with command:
            assert arrived.wait(30)
            command.send_signal(signal.SIGINT)
            out, err = command.communicate(timeout=15)

    assert (command.returncode, out, err) == (-signal.SIGINT, b"", b"")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "Missing argument"),
        (["{}/empty"], "no file in"),
        (["x", "--colour"], "--colour"),
        (["x", "--top", "many"], "--top"),
        (["x", "--top", "0"], "--top"),
        (["x", "--top", "101"], "--top"),
        (["x", "--min-probability", "2"], "--min-probability"),
        (["x", "--min-probability", "nan"], "--min-probability"),
        (["x", "--timeout", "0"], "--timeout"),
        (["x", "--timeout", "inf"], "--timeout"),
        (["x", "--format", "xml"], "--format"),
        (["x", "--format", "parquet"], "--output"),
        (["x", "--output", "{}/no/such/folder"], "no/such/folder"),
    ],
)
def test_wrong_use_is_told_in_one_line(
    arguments: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(SystemExit) as ended:
        main(["suggest", *(argument.format(tmp_path) for argument in arguments)])

    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert named in line


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("pyarrow", ["-", "--format", "parquet", "--output", "{}/a.parquet"], "report"),
        ("numpy", ["-", "--local"], "trainer"),
    ],
)
def test_a_missing_package_is_told_with_the_extra_it_comes_with(
    module: str, arguments: list[str], extra: str, tmp_path: Path
) -> None:
    (tmp_path / f"{module}.py").write_text("raise ModuleNotFoundError('no', name=__name__)")

    done = emojinet(
        "suggest", *(argument.format(tmp_path) for argument in arguments), PYTHONPATH=str(tmp_path)
    )

    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [
        f"emojinet: this needs the package {module}: pip install 'emojinet[{extra}]'"
    ]
