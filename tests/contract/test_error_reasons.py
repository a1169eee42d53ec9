import ast
import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from emojinet.v1 import error_reason_pb2 as reasons
from services.shared import errors
from services.shared.errors import EmojinetError

ROOT = Path(__file__).parents[2]
PROTO = (ROOT / "protos/emojinet/v1/error_reason.proto").read_text()
UNSPECIFIED = "ERROR_REASON_UNSPECIFIED"
# Where the contract says "the status of HTTP, where there was one", or "bytes or pixels".
SOMETIMES = {"status", "bytes", "pixels"}


def kinds(parent: type[EmojinetError] = EmojinetError) -> Iterator[type[EmojinetError]]:
    for kind in parent.__subclasses__():
        yield from kinds(kind)
        if "reason" in vars(kind):
            yield kind


KINDS = sorted(kinds(), key=lambda kind: kind.reason)
COMMENTS = {
    name: " ".join(comment.replace("//", " ").split())
    for comment, name in re.findall(r"((?: *//.*\n)+) *(ERROR_REASON_\w+) = \d+;", PROTO)
}


def promised(name: str) -> list[str]:
    """The keys of the metadata that the contract states for a reason."""
    _, _, metadata = COMMENTS[name].partition("Metadata:")
    return re.findall(r"`(\w+)`", metadata)


def test_every_value_of_the_enum_has_a_comment() -> None:
    assert COMMENTS.keys() == set(reasons.ErrorReason.keys())


def test_every_reason_but_the_unspecified_has_one_class() -> None:
    names = [errors.reason_name(kind) for kind in KINDS]
    assert sorted(names) == sorted(set(reasons.ErrorReason.keys()) - {UNSPECIFIED})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_code_of_a_class_is_the_one_that_the_contract_states(kind: type[EmojinetError]) -> None:
    stated = re.findall(r"Status `(\w+)`", COMMENTS[errors.reason_name(kind)])
    assert stated == [kind.code.name]


def test_the_tree_in_the_docstring_lists_every_class_with_its_code() -> None:
    drawn = re.findall(r"^[│├└─ ]*[├└]── (\w+) +([A-Z_]{5,})", errors.__doc__ or "", re.MULTILINE)
    assert sorted(drawn) == sorted((kind.__name__, kind.code.name) for kind in KINDS)


def unpromised(kind: type[EmojinetError]) -> list[str]:
    """Where a service raises it without metadata that the contract promises."""
    keys = set(promised(errors.reason_name(kind))) - SOMETIMES
    return [
        f"{path.relative_to(ROOT)}:{call.lineno}: {key}"
        for path in ROOT.glob("services/**/*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1] == kind.__name__
        for key in sorted(keys - {keyword.arg for keyword in call.keywords})
    ]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_place_that_raises_it_gives_the_metadata_that_the_contract_promises(
    kind: type[EmojinetError],
) -> None:
    assert unpromised(kind) == []


texts = st.text(st.characters(exclude_categories=["Cs"]))
failures = st.builds(
    lambda kind, message, seconds, facts: (kind, message, seconds, facts),
    st.sampled_from(KINDS),
    texts,
    st.none() | st.integers(0, 10**7).map(lambda milliseconds: milliseconds / 1000),
    st.dictionaries(texts, texts),
)


@given(failures)
def test_an_error_comes_back_from_its_status_as_it_was(
    failure: tuple[type[EmojinetError], str, float | None, dict[str, str]],
) -> None:
    kind, message, seconds, facts = failure
    error = kind(message, retry_seconds=seconds)
    error.metadata = facts

    travelled = errors.to_proto(error).SerializeToString()
    again = errors.from_proto(status_pb2.Status.FromString(travelled))

    assert type(again) is kind
    assert str(again) == message
    assert again.metadata == facts
    assert again.retry_seconds == seconds


@given(failures)
def test_a_status_names_code_reason_and_domain(
    failure: tuple[type[EmojinetError], str, float | None, dict[str, str]],
) -> None:
    kind, message, seconds, _ = failure
    status = errors.to_proto(kind(message, retry_seconds=seconds))
    info = errors.info(status.details)

    assert status.code == kind.code.value[0]
    assert status.message == message
    assert (info.domain, info.reason) == ("emojinet", errors.reason_name(kind))
    assert len(status.details) == 1 + (seconds is not None)


@pytest.mark.parametrize("code", list(grpc.StatusCode)[1:], ids=lambda code: code.name)
def test_a_status_that_is_none_of_ours_is_internal(code: grpc.StatusCode) -> None:
    foreign = status_pb2.Status(code=code.value[0], message="theirs")
    assert type(errors.from_proto(foreign)) is errors.Internal


def test_a_reason_of_another_domain_is_none_of_ours() -> None:
    status = errors.to_proto(errors.NoModel("none"))
    info = errors.info(status.details)
    info.domain = "googleapis.com"
    status.details[0].Pack(info)

    assert type(errors.from_proto(status)) is errors.Internal


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND])
def test_a_reason_newer_than_this_program_is_treated_by_its_status_code(
    code: grpc.StatusCode,
) -> None:
    status = errors.to_proto(errors.NoModel("none", retry_seconds=2))
    info = errors.info(status.details)
    info.reason = "ERROR_REASON_OF_TOMORROW"
    status.details[0].Pack(info)
    status.code = code.value[0]

    again = errors.from_proto(status)
    assert (again.code, str(again), again.retry_seconds) == (code, "none", 2)


INFO = errors.to_proto(errors.Overloaded("busy")).details[0]
NONSENSE = any_pb2.Any(type_url=INFO.type_url, value=INFO.value + b"\xff")


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [
        ({"seconds": 2**63 - 1}, errors.MAX_RETRY_SECONDS),
        ({"seconds": -(2**63), "nanos": -(2**31)}, 0),
        ({"seconds": 1, "nanos": 2**31 - 1}, 3.147483647),
    ],
)
def test_any_time_to_try_again_becomes_one_of_a_day_at_most(
    delay: dict[str, int], seconds: float
) -> None:
    status = errors.to_proto(errors.Overloaded("busy"))
    retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(**delay))
    status.details.add().Pack(retry)

    again = errors.from_proto(status)

    assert again.retry_seconds == seconds
    assert errors.to_proto(again).details[1].Is(retry.DESCRIPTOR)  # and it can travel on


@given(details=st.lists(st.binary(max_size=20), max_size=3))
def test_details_that_cannot_be_read_are_none(details: list[bytes]) -> None:
    status = status_pb2.Status(code=8, message="busy", details=[NONSENSE])
    for value in details:
        status.details.add(type_url="type.googleapis.com/google.rpc.RetryInfo", value=value + b"?")

    assert errors.info(status.details).reason == ""
    assert type(errors.from_proto(status)) is errors.Internal
    status.details.append(INFO)
    assert type(errors.from_proto(status)) is errors.Overloaded


def test_an_error_about_a_file_whose_name_is_no_text_can_be_told() -> None:
    name = b"/tmp/\xff".decode(errors="surrogateescape")
    again = errors.from_proto(errors.to_proto(errors.BadModel(f"No {name}.", path=name)))
    assert type(again) is errors.BadModel
