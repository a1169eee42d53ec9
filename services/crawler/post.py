"""What a source tells: posts, removals, and rows that are neither."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, TypeAlias


class Flag(StrEnum):
    """What a source says of a post that keeps it out, whatever its picture shows."""

    SENSITIVE = "sensitive"
    OPTED_OUT = "opted_out"


class PostImage(NamedTuple):
    """Where a post's picture is."""

    url: str
    """http(s), or `file:` for what is on this machine."""
    cid: str = ""
    """The content identifier that its bytes must have, where the source knows one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """One public post. Lives in memory only: what is stored of it is `keep.Kept`."""

    uri: str
    """Names the post within its source."""
    text: str
    """Its caption, as its author wrote it, without mark-up; empty if there is none."""
    images: Sequence[PostImage]
    author: str = ""
    """By the name that the source knows them by; empty if unknown. Hashed before it is stored."""
    time_seconds: float = 0.0
    """Since 1970, in UTC; 0 if unknown."""
    segment: str = ""
    """A part of the data by which its owner wants to compare, such as a brand or a country."""
    labels: Sequence[str] = ()
    """Emoji that were given apart from the text, in any spelling."""
    flags: frozenset[Flag] = field(default_factory=frozenset)


class Removal(NamedTuple):
    """A post or an account that must be forgotten; one of both is empty."""

    uri: str = ""
    author: str = ""
    for_good: bool = True
    """Whether it must never come back; a post that was edited is forgotten, and read anew."""


class OptOut(NamedTuple):
    """An author who wants to be in no data set, or (`allow`) in data sets again."""

    author: str
    allow: bool = False


class Malformed(NamedTuple):
    """Something in the place of a post that is none."""

    where: str
    """For people: a line of a file, a position in a stream."""
    why: str


Event: TypeAlias = Post | Removal | OptOut | Malformed


class Page(NamedTuple):
    """Events that are taken in together with the cursor that follows them, or not at all."""

    events: Sequence[Event]
    cursor: str
    """Where to go on; opaque to all but its source."""
