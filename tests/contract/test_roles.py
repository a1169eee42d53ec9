"""Every call of every contract, with each token that there may be."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from prometheus_client import CollectorRegistry

from clients.client import from_rpc
from services.shared import errors, harness, roles, tokens
from services.shared.access import Access
from services.shared.roles import ANYONE, NEEDED, OPERATE, SUGGEST

PROTOS = Path(__file__).parents[2] / "protos"
STUBS = [
    import_module(".".join(path.relative_to(PROTOS).with_suffix("").parts))
    for path in sorted(PROTOS.rglob("*_pb2.py"))
]
METHODS: dict[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method
    for module in (*STUBS, health_pb2, reflection_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
TOKENS = {SUGGEST: "s" * 43, OPERATE: "o" * 43}
NO_SUCH = ("/emojinet.v1.InferenceService/Sugest", "/grpc.health.v1.Health", "/x/y")
SHOWN = {
    "none": (),
    "unknown": (("authorization", f"Bearer {'u' * 43}"),),
    "of another scheme": (("authorization", f"Basic {TOKENS[OPERATE]}"),),
    SUGGEST: (("authorization", f"Bearer {TOKENS[SUGGEST]}"),),
    OPERATE: (("authorization", f"Bearer {TOKENS[OPERATE]}"),),
}
Metadata = tuple[tuple[str, str], ...]


class Everything(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Serves every method of the contracts, in its kind, with nothing."""

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        method = METHODS.get(details.method)
        return method and kind(method, grpc, "{}_rpc_method_handler")(
            answers if method.server_streaming else answer
        )


def kind(method: MethodDescriptor, home: Any, name: str = "{}") -> Any:
    ends = (method.client_streaming, method.server_streaming)
    return getattr(home, name.format("_".join("stream" if end else "unary" for end in ends)))


async def answer(request: bytes, context: Any) -> bytes:
    return b""


async def answers(request: bytes, context: Any) -> AsyncIterator[bytes]:
    yield b""


@asynccontextmanager
async def everything(access: Access) -> AsyncIterator[tuple[grpc.aio.Channel, CollectorRegistry]]:
    boundary, registry = harness.Boundary(), CollectorRegistry()
    boundary.count_in(registry, [])
    server = harness.new_server(boundary, access)
    server.add_generic_rpc_handlers((Everything(),))
    address = f"127.0.0.1:{harness.bind(server, '127.0.0.1', 0)}"
    await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel, registry
    await server.stop(None)


async def outcome(channel: grpc.aio.Channel, name: str, metadata: Metadata) -> str:
    """The code, and the reason where it has one.

    A stream of requests is left open and empty: grpc.aio tells INTERNAL instead of the server's
    status where a write meets the end of its call (grpc/grpc#36066).
    """
    method = METHODS.get(name, METHODS["/grpc.health.v1.Health/Check"])
    requests = () if method.client_streaming else (b"",)
    call = kind(method, channel)(name)(*requests, metadata=metadata, timeout=5)
    try:
        if method.server_streaming:
            assert [response async for response in call] == [b""]
        else:
            assert await call == b""
    except grpc.aio.AioRpcError as failure:
        reason = errors.reason_name(from_rpc(failure, "")).removeprefix("ERROR_REASON_")
        return f"{failure.code().name} {reason}"
    return "OK"


def expected(name: str, shown: str) -> str:
    needed = NEEDED[name]
    if needed == ANYONE:
        return "OK"
    if shown not in TOKENS:
        return "UNAUTHENTICATED UNAUTHENTICATED"
    return "OK" if shown in (OPERATE, needed) else "PERMISSION_DENIED FORBIDDEN"


@pytest.fixture
def known(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    lines = [tokens.line(role, token, "test") for role, token in TOKENS.items()]
    path.write_text("# who may\n\n" + "\n".join(lines) + "\n")
    return path


def test_every_call_of_every_contract_stands_in_the_table_and_no_other() -> None:
    assert len(METHODS) > 30
    assert set(METHODS) == set(NEEDED)
    assert set(NEEDED.values()) == {ANYONE, SUGGEST, OPERATE}


def test_without_a_token_health_alone_answers() -> None:
    free = {name for name, needed in NEEDED.items() if needed == ANYONE}
    assert {name.rpartition("/")[0] for name in free} == {"/grpc.health.v1.Health"}


def test_who_suggests_may_neither_crawl_nor_train_nor_look_behind() -> None:
    allowed = {name for name, needed in NEEDED.items() if needed == SUGGEST}
    homes = {"/emojinet.v1.InferenceService", "/inference.GRPCInferenceService"}
    assert {name.rpartition("/")[0] for name in allowed} == homes


async def test_each_call_with_each_token_ends_as_the_table_says(known: Path) -> None:
    async with everything(Access(tokens=known)) as (channel, _):
        came = {
            (name, shown): await outcome(channel, name, metadata)
            for name in METHODS
            for shown, metadata in SHOWN.items()
        }
    assert came == {(name, shown): expected(name, shown) for name, shown in came}


async def test_what_nobody_serves_is_told_only_to_who_is_known(known: Path) -> None:
    async with everything(Access(tokens=known)) as (channel, registry):
        for name in NO_SUCH:
            without = await outcome(channel, name, SHOWN["none"])
            with_it = await outcome(channel, name, SHOWN[SUGGEST])
            assert without == "UNAUTHENTICATED UNAUTHENTICATED"
            assert with_it == "UNIMPLEMENTED SERVER_UNREACHABLE"
        series = [sample for metric in registry.collect() for sample in metric.samples]
    assert series == []  # nobody's words have become a label


async def test_what_is_served_and_stands_in_no_table_is_denied_to_everybody(
    known: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(roles.NEEDED, "/emojinet.v1.InferenceService/Suggest")
    async with everything(Access(tokens=known)) as (channel, _):
        name = "/emojinet.v1.InferenceService/Suggest"
        assert await outcome(channel, name, SHOWN[OPERATE]) == "PERMISSION_DENIED FORBIDDEN"


async def test_without_a_file_of_tokens_nothing_stands_in_the_way() -> None:
    assert Access().guards(lambda method, code: None) == []
    async with everything(Access()) as (channel, _):
        assert {await outcome(channel, name, ()) for name in METHODS} == {"OK"}


async def test_refusals_are_counted_by_method_and_code(known: Path) -> None:
    async with everything(Access(tokens=known)) as (channel, registry):
        await outcome(channel, "/emojinet.v1.InferenceService/Suggest", SHOWN["none"])
        await outcome(channel, "/emojinet.v1.CrawlerService/RemoveContent", SHOWN[SUGGEST])
        counted = {
            (sample.labels["method"], sample.labels["code"]): sample.value
            for metric in registry.collect()
            for sample in metric.samples
            if sample.name == "emojinet_requests_total"
        }
    assert counted == {
        ("Suggest", "UNAUTHENTICATED"): 1,
        ("RemoveContent", "PERMISSION_DENIED"): 1,
    }
