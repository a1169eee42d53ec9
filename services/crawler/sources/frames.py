"""What Jetstream's frames say, in both versions of its protocol.

A place in the stream is a time in microseconds in version 1, a sequence number of the server's own
in version 2; servers tell them apart by their size.
"""

import json
import re
from datetime import UTC, datetime
from reprlib import repr as excerpt
from typing import Any, NamedTuple

OLDEST_US = 10**15  # the first cursor that is a time: servers then begin with the oldest they have
DID = re.compile(r"did:(?:plc:[a-z2-7]{24}|web:[a-z0-9](?:[a-z0-9.-]{0,250}[a-z0-9])?)")
RECORD_KEY = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._:~-]{1,512}")
NSID = re.compile(r"[A-Za-z0-9.-]{3,317}")


class Commit(NamedTuple):
    """A record that was created, updated or deleted."""

    place: int
    time_us: int
    did: str
    rev: str
    operation: str
    collection: str
    rkey: str
    cid: str
    record: dict[str, Any]
    """As its author made it; empty if there is none."""


class Account(NamedTuple):
    """An account that came to life or went."""

    place: int
    time_us: int
    did: str
    active: bool
    status: str


class Notice(NamedTuple):
    """What a server says of the stream itself."""

    name: str
    message: str
    fatal: bool


def parse(frame: str | bytes) -> Commit | Account | Notice | None:
    """What a frame of either version says; None for kinds that mean nothing here.

    Raises:
        ValueError: it is not such a frame; the message says why.
    """
    try:
        envelope = json.loads(frame)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON: {excerpt(str(error))}") from None
    if not isinstance(envelope, dict):
        raise ValueError(f"{excerpt(envelope)} is no object")
    match envelope.get("$type"):
        case None:
            time_us, kind = envelope.get("time_us"), envelope.get("kind")
            if kind == "commit":
                return _commit(envelope, _object(envelope, "commit"), time_us, time_us)
            if kind == "account":
                return _account(envelope, time_us, time_us)
        case "error":
            return Notice(_word(envelope, "error"), _word(envelope, "message"), fatal=True)
        case "message":
            return _version_2(_object(envelope, "payload"))
    return None


def _version_2(payload: dict[str, Any]) -> Commit | Account | Notice | None:
    match _word(payload, "$type").partition("#")[2]:
        case "commit":
            return _commit(payload, payload, payload.get("seq"), _seen_us(payload))
        case "account":
            return _account(payload, payload.get("seq"), _seen_us(payload))
        case "info":
            return Notice(_word(payload, "name"), _word(payload, "message"), fatal=False)
    return None


def _seen_us(payload: dict[str, Any]) -> int | None:
    return microseconds(payload.get("witnessedAt") or payload.get("time"))


def _commit(
    envelope: dict[str, Any], commit: dict[str, Any], place: object, time_us: object
) -> Commit:
    operation, record = commit.get("operation"), commit.get("record")
    if operation not in ("create", "update", "delete"):
        raise ValueError(f"operation {excerpt(operation)} is none that we know")
    return Commit(
        _number(place),
        _time(time_us),
        _matching(DID, envelope, "did"),
        _word(commit, "rev"),
        operation,
        _matching(NSID, commit, "collection"),
        _matching(RECORD_KEY, commit, "rkey"),
        _word(commit, "cid"),
        record if isinstance(record, dict) else {},
    )


def _account(envelope: dict[str, Any], place: object, time_us: object) -> Account:
    account = envelope.get("account")
    account = account if isinstance(account, dict) else envelope  # some servers nest less
    if not isinstance(active := account.get("active"), bool):
        raise ValueError(f"an account is active or not, but not {excerpt(active)}")
    did = _matching(DID, envelope, "did")
    return Account(_number(place), _time(time_us), did, active, _word(account, "status"))


def _object(parent: dict[str, Any], key: str) -> dict[str, Any]:
    if not isinstance(value := parent.get(key), dict):
        raise ValueError(f"{key} is {excerpt(value)}, not an object")
    return value


def _matching(pattern: re.Pattern[str], parent: dict[str, Any], key: str) -> str:
    if not isinstance(value := parent.get(key), str) or not pattern.fullmatch(value):
        raise ValueError(f"{key} {excerpt(value)} is malformed")
    return value


def _word(parent: dict[str, Any], key: str) -> str:
    return value if isinstance(value := parent.get(key), str) else ""


def _number(value: object) -> int:
    if type(value) is not int or not 0 < value < 10 * OLDEST_US:
        raise ValueError(f"{excerpt(value)} is no place in a stream")
    return value


def _time(value: object) -> int:
    if _number(value) < OLDEST_US:
        raise ValueError(f"{excerpt(value)} is no time in microseconds since 1970")
    return value  # type: ignore[return-value]


def microseconds(text: object) -> int | None:
    """Since 1970, of an ISO 8601 time; None if it is none.

    >>> microseconds("2026-07-04T14:38:08.373482Z")
    1783175888373482
    """
    try:
        moment = datetime.fromisoformat(text)  # type: ignore[arg-type]
        return round(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1e6)
    except (TypeError, ValueError, OverflowError):
        return None
