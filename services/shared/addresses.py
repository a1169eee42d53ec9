"""Which addresses a URL from a stranger may lead to: none inside our own network (SSRF).

A name is judged when a socket is about to be opened toward one of its addresses. Whatever is
checked earlier can be got round: by a redirect, by an odd way to write an address, by a name that
resolves to another address the second time. `ipaddress.is_global` alone is not enough: it lets
translated forms of private addresses (NAT64, 6to4) and the inner server of a cloud through.
"""

import re
import socket
from collections.abc import Sequence
from errno import EACCES
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, TypeAlias

import aiohttp
from yarl import URL

from services.shared.errors import UrlRefused

Network: TypeAlias = IPv4Network | IPv6Network

SCHEMES = ("http", "https", "ws", "wss")
PORTS = (80, 443)
MAX_URL = 8192
REFUSED = """
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24
    192.0.2.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24
    198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/3 168.63.129.16/32
    ::/3 4000::/2 8000::/1 2001::/23 2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20
"""
"""168.63.129.16 is Azure's. Of IPv6 only 2000::/3 is in use: outside it lie ::1, mapped
IPv4, NAT64, fc00:: and fe80::, within it Teredo and its neighbours, documentation, 6to4, AS112."""
_REFUSED: Sequence[Network] = [ip_network(cidr) for cidr in REFUSED.split()]
_NAME = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?", re.IGNORECASE)
_NUMBER = re.compile(r"(?:^|\.)(?:0x[0-9a-f]*|[0-9]+)\.*$", re.IGNORECASE)


class AddressRefused(OSError):
    """Toward such an address, or such a port of it, no socket is opened."""


def refused(address: IPv4Address | IPv6Address) -> bool:
    """Whether the address is none of the public internet.

    >>> refused(ip_address("8.8.8.8")), refused(ip_address("64:ff9b::7f00:1"))
    (False, True)
    """
    return any(address in network for network in _REFUSED)


def networks(text: str) -> tuple[Network, ...]:
    """The networks of a comma-separated list; raises ValueError with what would be right.

    >>> networks("10.0.0.0/8, fd00::/8")
    (IPv4Network('10.0.0.0/8'), IPv6Network('fd00::/8'))
    """
    try:
        return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ValueError(f"{error}; networks look like 10.0.0.0/8,fd00::/8") from None


def check_url(url: str | URL) -> URL:
    """The URL, parsed and in canonical form, if it is one that we open at all.

    Where it leads is checked by the `connector`.

    Raises:
        UrlRefused: it is malformed, of another scheme, with a user name, or writes an address in
            a form that only some programs take for one.
    """
    if isinstance(url, str) and len(url) > MAX_URL:
        raise UrlRefused(f"The URL is longer than {MAX_URL} characters.")
    try:
        parsed = URL(url)
        host, port = parsed.raw_host, parsed.port  # parsed only here, so errors come only here
    except ValueError:
        raise UrlRefused("The URL is malformed.") from None
    if parsed.scheme not in SCHEMES:
        raise UrlRefused(f"The URL's scheme is {parsed.scheme!r}; it must be http or https.")
    if parsed.raw_user is not None or parsed.raw_password is not None:
        raise UrlRefused("The URL has a user name or a password in it; send it without.")
    if not host or not port or not _is_plain(host):
        raise UrlRefused(f"The URL's host is not one that we open: {parsed.raw_authority!r}.")
    return parsed


def _is_plain(host: str) -> bool:
    """A name, or an address as all programs write it: not 127.1, 0x7f000001 or fe80::1%lo."""
    if _NAME.fullmatch(host) and not _NUMBER.search(host):
        return True
    try:
        return "%" not in host and bool(ip_address(host))
    except ValueError:
        return False


def connector(allow: Sequence[Network] = (), **options: Any) -> aiohttp.TCPConnector:
    """A connector that opens sockets toward public addresses only, at ports 80 and 443.

    Sessions that use it must not be told of proxies (`trust_env`): a proxy connects for us.

    Args:
        allow: what an operator opens besides, at any port.
        options: as `aiohttp.TCPConnector` has them.
    """

    def opened(info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, (host, port, *_) = info
        address = ip_address(host)
        if not any(address in network for network in allow):
            if refused(address):
                raise AddressRefused(EACCES, f"{address} is not of the public internet")
            if port not in PORTS:
                raise AddressRefused(EACCES, f"port {port} is neither 80 nor 443")
        return socket.socket(family, kind, protocol)

    return aiohttp.TCPConnector(socket_factory=opened, **options)
