"""Bluesky's firehose of a world: what happened, in order, each event with a sequence number.

A post takes four steps of the stream: its creation, the deletion of an earlier post, something
about an author, and what a subscriber to posts should not be sent. Steps may be empty. Authors
leave, or state their will about data sets, in the last quarter of the stream, so that a crawler
has something of theirs to remove.
"""

import base64
import json
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from tests.standin.chance import Chance
from tests.standin.pictures import Pictures
from tests.standin.world import DELETED_AFTER, Author, Image, Post, World, tid

STEPS = 4  # of each post
POST, LIKE = "app.bsky.feed.post", "app.bsky.feed.like"
INTENTS, PREFERENCE = "org.user-intents.declaration", "community.lexicon.preference.ai"
RAW, DAG_CBOR = 0x55, 0x71
LEAVING = frozenset({"deleted", "takendown", "deactivated"})

Event = dict[str, Any]


def cid(content: bytes, codec: int = RAW) -> str:
    """The CIDv1 of content with its SHA-256, in base32: what AT Protocol calls a blob.

    >>> cid(b"")
    'bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku'
    """
    digest = bytes([1, codec, 0x12, 0x20]) + sha256(content).digest()
    return "b" + base64.b32encode(digest).decode().rstrip("=").lower()


def stamp(time_us: int, digits: int = 3) -> str:
    """A time as Bluesky writes it."""
    whole = datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{time_us % 1_000_000 // 10 ** (6 - digits):0{digits}}Z"


class Events:
    """The events of a world, by step; and those that tests make up."""

    def __init__(self, world: World, pictures: Pictures) -> None:
        self._world = world
        self._pictures = pictures
        self._cids: dict[int, str] = {}
        self.blobs: dict[tuple[str, str], int] = {}
        """From an author's DID and a CID to the image; what has been told so far."""

    @property
    def steps(self) -> int:
        return self._world.posts * STEPS

    def at(self, step: int) -> Event | None:
        """What happened at a step, if anything."""
        place, turn = divmod(step, STEPS)
        if turn == 0:
            return self._creation(place)
        if turn == 1:
            return self._deletion(place)
        author = self._author_at(place)
        if author and turn == 2:
            return self._fate(author, place)
        if author and author.fate == "opted_back_in":
            return self.intent(author, allow=True)
        return self._noise(place) if turn == 3 else None

    def leaves_at(self, author: Author) -> int:
        """The place in the stream where an author's fate comes."""
        first = self._world.posts - self._world.posts // 4
        return first + author.number * (self._world.posts - first) // self._world.author_count

    def step_of(self, post: Post) -> int:
        return self._world.stream.place(post.number) * STEPS

    def created(self, post: Post) -> bool:
        """Whether the stream has its creation: who has left no longer posts."""
        author = post.author
        place = self._world.stream.place(post.number)
        return author.fate not in LEAVING or place <= self.leaves_at(author)

    def _author_at(self, place: int) -> Author | None:
        world = self._world
        first = world.posts - world.posts // 4
        if place < first:
            return None
        number = -(-(place - first) * world.author_count // (world.posts - first))
        if number >= world.author_count:
            return None
        author = world.author(number)
        return author if self.leaves_at(author) == place else None

    def _creation(self, place: int) -> Event | None:
        post = self._world.post(self._world.stream.number(place))
        return self.creation(post) if self.created(post) else None

    def _deletion(self, place: int) -> Event | None:
        if place < DELETED_AFTER:
            return None
        post = self._world.post(self._world.stream.number(place - DELETED_AFTER))
        return self.deletion(post) if post.deleted and self.created(post) else None

    def _fate(self, author: Author, place: int) -> Event | None:
        match author.fate:
            case "":
                return None
            case "identity":
                return self.identity(author)
            case "opted_out" | "opted_back_in":
                return self.intent(author, allow=False)
        return self.account(author, author.fate)

    def _noise(self, place: int) -> Event | None:
        author = self._world.author(place % self._world.author_count)
        if place % 3 == 0:
            record = {"$type": LIKE, "createdAt": stamp(self._world.time_us_at(place * STEPS))}
            return self._commit(author, "create", LIKE, tid(place), record)
        if place % 5 == 1:
            when = stamp(self._world.time_us_at(place * STEPS))
            record = {"$type": POST, "text": "only words, and #🍕", "createdAt": when}
            rkey = tid(self._world.time_us_at(place * STEPS + 3))
            return self._commit(author, "create", POST, rkey, record)
        return None

    def creation(self, post: Post, *, text: str | None = None) -> Event:
        """A post's commit; with a text of its own for a test."""
        return self._commit(
            post.author, "create", POST, self._world.rkey(post), self.record(post, text=text)
        )

    def deletion(self, post: Post) -> Event:
        return self._commit(post.author, "delete", POST, self._world.rkey(post), None)

    def account(self, author: Author, status: str, *, active: bool = False) -> Event:
        """An account event: deleted, takendown, suspended, deactivated …"""
        account = {"active": active, "did": author.did, "status": status}
        if active:
            del account["status"]
        return {"did": author.did, "kind": "account", "account": account}

    def identity(self, author: Author) -> Event:
        identity = {"did": author.did, "handle": author.handle}
        return {"did": author.did, "kind": "identity", "identity": identity}

    def intent(self, author: Author, *, allow: bool | None, collection: str = "") -> Event:
        """A declaration about data sets; with `allow` None, the deletion of one."""
        collection = collection or (PREFERENCE if author.number % 2 else INTENTS)
        if allow is None:
            return self._commit(author, "delete", collection, "self", None)
        now = stamp(int(self._world.epoch * 1e6))
        will = {"allow": allow, "updatedAt": now}
        record: Event = {"$type": collection, "updatedAt": now}
        if collection == INTENTS:
            record |= {"syntheticContentGeneration": will, "bulkDataset": will}
        else:
            record["scope"] = {"$type": f"{collection}#globalScope"}
            record["preferences"] = {"training": will, "embedding": will, "inference": will}
        return self._commit(author, "create" if not allow else "update", collection, "self", record)

    def _commit(
        self, author: Author, operation: str, collection: str, rkey: str, record: Event | None
    ) -> Event:
        commit: Event = {"rev": "", "operation": operation, "collection": collection, "rkey": rkey}
        if record is not None:
            commit["record"] = record
            commit["cid"] = cid(json.dumps(record).encode(), DAG_CBOR)
        return {"did": author.did, "kind": "commit", "commit": commit}

    def record(self, post: Post, *, text: str | None = None) -> Event:
        """A post as its author's repository has it."""
        record: Event = {
            "$type": POST,
            "createdAt": stamp(self._world.time_us(post)),
            "langs": ["en"],
            "text": post.text if text is None else text,
        }
        if text is None and post.hashtags:
            record["facets"] = [_facet(post.text, h.start, h.content) for h in post.hashtags]
        if post.comment:
            record["tags"] = [tag.removeprefix("#") for tag in post.comment.split()]
        if post.sensitive:
            record["labels"] = {
                "$type": "com.atproto.label.defs#selfLabels",
                "values": [{"val": post.sensitive}],
            }
        record["embed"] = self._embed(post)
        return record

    def _embed(self, post: Post) -> Event:
        if post.kind == "video":
            video = {"$type": "blob", "ref": {"$link": cid(b"video")}, "mimeType": "video/mp4"}
            return {"$type": "app.bsky.embed.video", "video": video | {"size": 1_000_000}}
        chance = Chance(self._world.seed, "embed", post.number)
        images = [self._image(post, image) for image in post.images]
        media: Event = {"$type": "app.bsky.embed.images", "images": images}
        if chance.below(10) == 0:
            items = [{"$type": "app.bsky.embed.gallery#image", **image} for image in images]
            media = {"$type": "app.bsky.embed.gallery", "items": items}
        if chance.below(10):
            return media
        uri = f"at://{post.author.did}/{POST}/{tid(0)}"
        quoted = {"uri": uri, "cid": cid(b"quoted", DAG_CBOR)}
        record = {"$type": "app.bsky.embed.record", "record": quoted}
        return {"$type": "app.bsky.embed.recordWithMedia", "record": record, "media": media}

    def _image(self, post: Post, image: Image) -> Event:
        content = self._pictures.of(image)
        link = self._cids.setdefault(image.number, cid(content))
        self.blobs[post.author.did, link] = image.number
        return {
            "alt": "" if image.number % 3 else "a picture of 🗿",
            "aspectRatio": {"height": image.height, "width": image.width},
            "image": {
                "$type": "blob",
                "ref": {"$link": link},
                "mimeType": "image/jpeg",
                "size": len(content),
            },
        }

    def cid_of(self, image: Image) -> str:
        """The content identifier of an image's bytes."""
        if image.number not in self._cids:
            self._cids[image.number] = cid(self._pictures.of(image))
        return self._cids[image.number]

    def image_of(self, did: str, link: str) -> Image | None:
        """The image that an author's blob is."""
        if (number := self.blobs.get((did, link))) is not None:
            return self._world.image(number)
        author = self._world.author_by_did(did)
        if author is None:
            return None
        for number in self._world.posts_of(author.number):  # after a restart of the stand-in
            for image in self._world.post(number).images:
                if self.cid_of(image) == link:
                    self.blobs[did, link] = image.number
                    return image
        return None


def _facet(text: str, start: int, content: str) -> Event:
    """A hashtag as the official client marks it: it cuts a tag at a zero-width joiner."""
    tag = content.split("\u200d")[0]
    first = len(text[:start].encode())
    return {
        "index": {"byteStart": first, "byteEnd": first + len(f"#{tag}".encode())},
        "features": [{"$type": "app.bsky.richtext.facet#tag", "tag": tag}],
    }
