import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from services.shared import addresses
from services.shared.errors import UrlRefused

PRIVATE = """
    0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.254 127.0.0.1 127.255.255.255
    169.254.0.1 169.254.169.254 169.254.170.2 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.8
    192.0.0.170 192.0.2.1 192.88.99.1 192.168.0.1 192.168.255.255 198.18.0.1 198.19.255.255
    198.51.100.7 203.0.113.9 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 168.63.129.16
    :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0:127.0.0.1
    64:ff9b::7f00:1 64:ff9b::10.0.0.1 64:ff9b:1::1 100::1 2001::1 2001:0:7f00:1::1 2001:2::1
    2001:10::1 2001:20::1 2001:db8::1 2002:7f00:1:: 2002:a00:1::1 2620:4f:8000::1 3fff::1 5f00::1
    fc00::1 fd00:ec2::254 fd12:3456::1 fe80::1 febf::1 fec0::1 ff02::1 ff0e::1 4000::1
"""
PUBLIC = """
    1.1.1.1 8.8.8.8 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 192.0.1.1 192.167.0.1
    198.17.0.1 198.20.0.1 168.63.129.15 223.255.255.255 2606:4700::1111 2a00:1450:4001::1
    2001:4860:4860::8888 2400:cb00::1 2620:fe::fe
"""

# %s is where the canary listens, besides 127.0.0.1.
ODD_FORMS = [
    "http://127.0.0.1:%s/",
    "http://127.1:%s/",
    "http://127.0.1:%s/",
    "http://127.0.0.1.:%s/",
    "http://0:%s/",
    "http://0.0.0.0:%s/",
    "http://2130706433:%s/",
    "http://0x7f000001:%s/",
    "http://0x7f.0x0.0x0.0x1:%s/",
    "http://0x7f.1:%s/",
    "http://0x7F.0.1:%s/",
    "http://0177.0.0.1:%s/",
    "http://0177.1:%s/",
    "http://017700000001:%s/",
    "http://127.000.000.001:%s/",
    "http://0000127.0.0.1:%s/",
    "http://127.0.0.0x1:%s/",
    "http://127.0.0.1%%00:%s/",
    "http://127%%2e0%%2e0%%2e1:%s/",
    "http://%%31%%32%%37.0.0.1:%s/",
    "http://１２７.0.0.1:%s/",
    "http://127。0。0。1:%s/",
    "http://①②⑦.⓪.⓪.①:%s/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:%s/",
    "http://localhost:%s/",
    "http://LOCALHOST:%s/",
    "http://localhost.:%s/",
    "http://localhost..:%s/",
    "http://[::1]:%s/",
    "http://[::]:%s/",
    "http://[0:0:0:0:0:0:0:1]:%s/",
    "http://[::127.0.0.1]:%s/",
    "http://[::ffff:127.0.0.1]:%s/",
    "http://[::ffff:7f00:1]:%s/",
    "http://[0:0:0:0:0:ffff:127.0.0.1]:%s/",
    "http://[::ffff:0:127.0.0.1]:%s/",
    "http://[64:ff9b::127.0.0.1]:%s/",
    "http://[2002:7f00:1::]:%s/",
    "http://[::1%%25lo]:%s/",
    "http://[::1%%lo]:%s/",
    "http://[fe80::1%%251]:%s/",
    "http://user@127.0.0.1:%s/",
    "http://user:pass@127.0.0.1:%s/",
    "http://example.com@127.0.0.1:%s/",
    "http://127.0.0.1:%s@example.com/",
    "http://example.com#@127.0.0.1:%s/",
    "http://1.1.1.1 &@127.0.0.1:%s# @3.3.3.3/",
    "http://example.com\\@127.0.0.1:%s/",
    "http://127.0.0.1\t:%s/",
    "http://127.0.0.1\r\nHost: x:%s/",
    " http://127.0.0.1:%s/",
    "http:/127.0.0.1:%s/",
    "http:127.0.0.1:%s/",
    "http:///127.0.0.1:%s/",
    "//127.0.0.1:%s/",
    "https://127.0.0.1:%s/",
    "ws://127.0.0.1:%s/",
    "wss://[::1]:%s/",
    "HTTP://127.0.0.1:%s/",
    "http://exa mple.com:%s/",
    "ftp://127.0.0.1:%s/",
    "gopher://127.0.0.1:%s/_GET",
    "file:///etc/passwd?%s",
    "file://127.0.0.1:%s/etc/passwd",
    "unix:///run/x.sock?%s",
    "data:text/plain,%s",
    "javascript:%s",
    "http://:%s/",
    "http://[:%s/",
    "http://127.0.0.1:%s0000/",
    "http://127.0.0.1:-%s/",
    "%s",
]


def test_there_are_many_odd_forms() -> None:
    assert len(set(ODD_FORMS)) >= 60


@pytest.mark.parametrize("address", PRIVATE.split())
def test_an_address_that_is_not_of_the_public_internet_is_refused(address: str) -> None:
    assert addresses.refused(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC.split())
def test_a_public_address_is_not_refused(address: str) -> None:
    assert not addresses.refused(ip_address(address))


@given(st.ip_addresses())
def test_nothing_is_opened_that_python_takes_for_private(
    address: IPv4Address | IPv6Address,
) -> None:
    assert addresses.refused(address) or (address.is_global and not address.is_multicast)


@given(st.ip_addresses(v=4))
def test_no_way_to_wrap_an_ipv4_address_gets_round_the_list(inner: IPv4Address) -> None:
    number = int(inner)
    for wrapped in (
        number,
        0xFFFF << 32 | number,
        0x64FF9B << 96 | number,
        0x2002 << 112 | number << 80,
        0x2001 << 112 | number,
    ):
        assert addresses.refused(IPv6Address(wrapped))


class Canary:
    """Listens on both loopback addresses; nobody may call."""

    def __init__(self) -> None:
        self.calls = 0
        self.port = 0

    def _called(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.calls += 1
        writer.close()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Canary"]:
        four = await asyncio.start_server(self._called, "127.0.0.1", 0)
        self.port = four.sockets[0].getsockname()[1]
        try:
            six = [await asyncio.start_server(self._called, "::1", self.port)]
        except OSError:  # there is no IPv6 here
            six = []
        try:
            yield self
        finally:
            for server in (four, *six):
                server.close()
                await server.wait_closed()


class Names(AbstractResolver):
    """Answers from a list, one address each time; the last one stays."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked = list(answers), 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            ResolveResult(
                hostname=host,
                host=one,
                port=port,
                family=socket.AF_INET6 if ":" in one else socket.AF_INET,
                proto=0,
                flags=0,
            )
            for one in answer.split()
        ]

    async def close(self) -> None:
        pass


@contextmanager
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """What sockets are made meanwhile, none of which reaches anybody."""
    made: list[object] = []

    async def connect(_: asyncio.AbstractEventLoop, sock: socket.socket, address: object) -> None:
        made.append(address)
        raise ConnectionRefusedError("there is no internet in tests")

    with monkeypatch.context() as patch:
        patch.setattr(asyncio.SelectorEventLoop, "sock_connect", connect)
        yield made


async def get(url: str | URL, resolver: AbstractResolver | None = None) -> None:
    """As all who use the guard do: check what is written, then open it."""
    connector = addresses.connector(resolver=resolver, use_dns_cache=False)
    timeout = aiohttp.ClientTimeout(total=5)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        await session.get(addresses.check_url(url))


@pytest.mark.parametrize("form", ODD_FORMS)
async def test_no_way_to_write_an_address_reaches_the_canary(form: str) -> None:
    async with Canary().listening() as canary:
        url = form % canary.port
        with pytest.raises((UrlRefused, aiohttp.ClientError)):
            await get(url, Names("127.0.0.1"))
        assert canary.calls == 0


async def test_a_name_of_a_private_address_is_refused_where_it_resolves() -> None:
    async with Canary().listening() as canary:
        for host in ("rebind.test", "metadata.google.internal", "localtest.me"):
            for answer in ("127.0.0.1", "::1", "::ffff:127.0.0.1", "127.0.0.1 ::1"):
                with pytest.raises(aiohttp.ClientConnectorError):
                    await get(f"http://{host}:{canary.port}/", Names(answer))
        assert canary.calls == 0


async def test_a_name_that_resolves_to_another_address_the_second_time_is_refused_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = Names("8.8.8.8", "127.0.0.1")
    with opened(monkeypatch) as made:
        with pytest.raises(aiohttp.ClientConnectorError, match=r"\[None\]"):
            await get("http://rebind.test/", names)
        assert made == [("8.8.8.8", 80)]
        with pytest.raises(aiohttp.ClientConnectorError, match="not of the public"):
            await get("http://rebind.test/", names)
        assert made == [("8.8.8.8", 80)]


async def test_of_several_addresses_of_a_name_only_public_ones_are_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with opened(monkeypatch) as made, pytest.raises(aiohttp.ClientConnectorError):
        await get("https://both.test/", Names("10.0.0.1 8.8.8.8 ::1 2606:4700::1111"))
    assert {address[0] for address in made} == {"8.8.8.8", "2606:4700::1111"}  # type: ignore[index]


@pytest.mark.parametrize("port", [1, 22, 25, 81, 6379, 8080, 65535])
async def test_other_ports_than_those_of_the_web_are_refused(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(monkeypatch) as made, pytest.raises(aiohttp.ClientConnectorError, match="port"):
        await get(f"http://example.test:{port}/", Names("8.8.8.8"))
    assert made == []


async def test_what_an_operator_allows_is_opened_at_any_port() -> None:
    async with Canary().listening() as canary:
        connector = addresses.connector([ip_network("127.0.0.0/8")])
        async with aiohttp.ClientSession(connector=connector) as session:
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await session.get(addresses.check_url(f"http://127.0.0.1:{canary.port}/"))
        assert canary.calls > 0


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/a b?q=ü#x",
        "https://cdn.example.com/p/🍕.jpg?sig=a%2Bb",
        "wss://jetstream.example.com/subscribe",
        "http://xn--bcher-kva.example/",
        "http://bücher.example/",
        "http://under_score.example/",
        "http://1and1.example/",
        "http://8.8.8.8/",
        "http://[2606:4700::1111]/",
    ],
)
def test_an_honest_url_is_accepted(url: str) -> None:
    assert addresses.check_url(url) == URL(url)


def test_a_name_of_letters_beyond_ascii_is_sent_in_its_ascii_form() -> None:
    assert addresses.check_url("http://bücher.example/").raw_host == "xn--bcher-kva.example"


def test_a_url_of_many_kilobytes_is_refused() -> None:
    with pytest.raises(UrlRefused, match="longer"):
        addresses.check_url("http://example.com/" + "a" * 10_000)


@given(st.text() | st.text().map("http://{}".format))
def test_any_text_is_accepted_or_refused_and_nothing_else(text: str) -> None:
    try:
        url = addresses.check_url(text)
    except UrlRefused:
        return
    assert url.scheme in addresses.SCHEMES
    assert url.raw_host
    assert url.raw_user is None
    assert not set("\r\n \t\0") & set(str(url))


def test_a_refusal_does_not_repeat_the_query() -> None:
    for url in ("ftp://h/?token=secret", "http://u:secret@h/?token=secret", "http://0x1/?secret"):
        with pytest.raises(UrlRefused) as refusal:
            addresses.check_url(url)
        assert "secret" not in str(refusal.value)
