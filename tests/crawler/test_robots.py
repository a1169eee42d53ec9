import asyncio
from collections.abc import Sequence
from ipaddress import ip_network

import pytest
from aiohttp import web as server
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from services.crawler.limits import Clock
from services.crawler.robots import Robots, opted_out
from services.crawler.web import Web
from tests.crawler.test_web import LOOPBACK, site
from tests.standin import robots as standin


class Later(Clock):
    """A clock that is set by hand."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


async def verdict(variant: str, path: str = "p/1_7.jpg") -> bool:
    async def handler(request: server.Request) -> server.StreamResponse:
        if request.path == "/robots-moved.txt":
            return await standin.moved(request)
        assert request.path == "/robots.txt"
        return await standin.VARIANTS[variant](request)

    async with site(handler) as url, Web(allow=LOOPBACK) as web:
        return await Robots(web, answer_seconds=2.0).allowed(url.join(url / path))


CANNOT_SAY = {"unavailable", "broken", "slow", "reset"}


@pytest.mark.parametrize("variant", standin.VARIANTS)
async def test_every_kind_of_robots_txt_is_understood(variant: str) -> None:
    closed = variant in standin.CLOSED | CANNOT_SAY | {"disallow-images"}
    assert await verdict(variant) is not closed


async def test_a_rule_holds_for_the_paths_that_it_names() -> None:
    assert await verdict("disallow-images", "xrpc/a.jpg")
    assert not await verdict("disallow-images", "xrpc/a_5.jpg")


async def test_a_file_is_asked_for_once_a_day_however_many_want_it() -> None:
    asked = 0

    async def handler(_: server.Request) -> server.StreamResponse:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.05)
        return server.Response(text=standin.ALLOW)

    clock = Later()
    async with site(handler) as url, Web(allow=LOOPBACK, clock=clock) as web:
        robots = Robots(web)
        wants = (robots.allowed(url / str(n)) for n in range(20))
        assert all(await asyncio.gather(*wants))
        clock.ahead = 86_000
        assert await robots.allowed(url / "p")
        assert asked == 1
        clock.ahead = 87_000
        assert await robots.allowed(url / "p")
        assert asked == 2


async def test_a_host_that_could_not_say_is_asked_again_soon() -> None:
    statuses = [503, 200]

    async def handler(_: server.Request) -> server.StreamResponse:
        return server.Response(status=statuses.pop(0), text=standin.ALLOW)

    clock = Later()
    async with site(handler) as url, Web(allow=LOOPBACK, clock=clock) as web:
        robots = Robots(web)
        assert not await robots.allowed(url)
        clock.ahead = 100
        assert not await robots.allowed(url)
        clock.ahead = 400
        assert await robots.allowed(url)


async def test_who_gives_up_waiting_leaves_the_question_to_the_next() -> None:
    async def handler(_: server.Request) -> server.StreamResponse:
        await asyncio.sleep(0.1)
        return server.Response(text=standin.ALLOW)

    async with site(handler) as url, Web(allow=LOOPBACK) as web:
        robots = Robots(web)
        first, second = (asyncio.create_task(robots.allowed(url)) for _ in range(2))
        await asyncio.sleep(0.02)
        first.cancel()
        assert await second


async def test_each_origin_has_rules_of_its_own() -> None:
    async def closed(_: server.Request) -> server.StreamResponse:
        return server.Response(text=standin.DISALLOW)

    async def open_(_: server.Request) -> server.StreamResponse:
        return server.Response(text=standin.ALLOW)

    async with site(closed) as one, site(open_) as two, Web(allow=LOOPBACK) as web:
        robots = Robots(web)
        assert [await robots.allowed(one), await robots.allowed(two)] == [False, True]


async def test_a_redirect_to_a_private_address_is_not_followed() -> None:
    async def handler(_: server.Request) -> server.StreamResponse:
        raise server.HTTPFound("http://127.0.0.1:9/robots.txt")

    async with (
        site(handler, address="127.0.0.2") as url,
        Web(allow=[ip_network("127.0.0.2/32")]) as web,
    ):
        assert not await Robots(web).allowed(url)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("User-agent: *\nCrawl-delay: 2", 2.0),
        ("User-agent: *\nCrawl-delay: 2\n\nUser-agent: EmojiNet\nCrawl-delay: 0.5", 0.5),
        ("User-agent: *\nCrawl-delay: 86400", 10.0),
        ("User-agent: *\nCrawl-delay: -3", 0.0),
        ("User-agent: *\nCrawl-delay: soon", 0.0),
        ("User-agent: OtherBot\nCrawl-delay: 9", 0.0),
        ("", 0.0),
    ],
)
async def test_a_delay_that_is_asked_for_is_kept_within_reason(text: str, seconds: float) -> None:
    async def handler(_: server.Request) -> server.StreamResponse:
        return server.Response(text=text)

    async with site(handler) as url, Web(allow=LOOPBACK) as web:
        assert (await Robots(web).rules(url)).pace_seconds == seconds


@settings(max_examples=40)
@given(content=st.binary() | st.text().map(str.encode))
def test_no_robots_txt_whatever_breaks_us(content: bytes) -> None:
    async def scene() -> None:
        async def handler(_: server.Request) -> server.StreamResponse:
            return server.Response(body=content)

        async with site(handler) as url, Web(allow=LOOPBACK) as web:
            assert await Robots(web).allowed(url / "a") in (True, False)

    asyncio.run(scene())


def headers(*tags: str, **others: str) -> "CIMultiDictProxy[str]":
    told = [("X-Robots-Tag", tag) for tag in tags]
    told += [(name.replace("_", "-"), value) for name, value in others.items()]
    return CIMultiDictProxy(CIMultiDict(told))


@pytest.mark.parametrize("word", ["noai", "noimageai", "noindex", "noimageindex", "noml", "none"])
@pytest.mark.parametrize(
    "form",
    [
        "{}",
        " {} ",
        "nofollow, {}",
        "max-snippet: 3, {}",
        "unavailable_after: 25 Jun 2030 15:00:00 PST, {}",
        "unavailable_after: Fri, 25 Jun 2030 15:00:00 GMT, {}",
        "emojinet: {}",
        "EmojiNet : nofollow, {}",
        "*: {}",
        "otherbot: noai, emojinet: {}",
    ],
)
def test_a_header_that_opts_out_is_heeded(word: str, form: str) -> None:
    assert opted_out(headers(form.format(word))) == word
    assert opted_out(headers("all", form.format(word.upper()))) == word


@pytest.mark.parametrize(
    "tags",
    [
        [],
        ["all"],
        ["nofollow, noarchive"],
        ["otherbot: noai"],
        ["otherbot: nofollow, noai"],
        ["otherbot: noai", "another: none"],
        ["noaivy", "no ai", ""],
        ["unavailable_after: noai"],
        ["otherbot: unavailable_after: Fri, 25 Jun 2030 15:00:00 GMT, noai"],
    ],
)
def test_other_headers_opt_nobody_out(tags: Sequence[str]) -> None:
    assert opted_out(headers(*tags)) in (
        None,
        "noai" if "unavailable_after: noai" in tags else None,
    )


def test_a_reservation_of_text_and_data_mining_is_heeded() -> None:
    assert opted_out(headers(TDM_Reservation="1")) == "tdm-reservation"
    assert opted_out(headers(tdm_reservation=" 1 ")) == "tdm-reservation"
    assert opted_out(headers(TDM_Reservation="0")) is None
