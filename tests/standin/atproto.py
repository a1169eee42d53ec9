"""The parts of AT Protocol that lead from a post to its pictures: directory, blobs, image proxy."""

import asyncio
from io import BytesIO

from aiohttp import web
from PIL import Image as Pillow

from tests.standin.cdn import Cdn
from tests.standin.events import LEAVING, Events
from tests.standin.jetstream import GAP, Jetstream
from tests.standin.pictures import Pictures
from tests.standin.tally import KIND
from tests.standin.world import Author, Image, World

ERRORS = {"deleted": "RepoNotFound", "takendown": "RepoTakendown", "deactivated": "RepoDeactivated"}


class Atproto:
    """The identity directory, the personal data servers (one at each host) and `cdn.bsky.app`."""

    def __init__(
        self,
        world: World,
        pictures: Pictures,
        events: Events,
        jetstream: Jetstream,
        cdn: Cdn,
        *,
        hosts: list[str],
    ) -> None:
        self._world = world
        self._pictures = pictures
        self._events = events
        self._jetstream = jetstream
        self._cdn = cdn
        self._hosts = hosts
        self.taken_down: dict[str, str] = {}
        """Errors that tests wish for accounts, by DID: RepoTakendown, RepoSuspended …"""
        self.corrupt: set[str] = set()
        """CIDs whose blob comes with one byte changed."""

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/xrpc/com.atproto.sync.getBlob", self.blob),
            web.get("/img/{preset}/plain/{did}/{cid}", self.proxied),
            web.get(r"/{did:did:[a-z]+:[a-zA-Z0-9.:%-]+}", self.document),
            web.get("/plc/{did}", self.document),
        ]

    def pds(self, author: Author) -> str:
        """The base URL of an author's personal data server."""
        return self._hosts[author.number % len(self._hosts)]

    async def document(self, request: web.Request) -> web.Response:
        """A DID document, as the directory of `did:plc` has it."""
        request[KIND] = "plc"
        did = request.match_info["did"]
        author = self._world.author_by_did(did)
        if author is None:
            return web.json_response({"message": f"DID not registered: {did}"}, status=404)
        if self._has_left(author) and author.fate == "deleted":
            return web.json_response({"message": f"DID not available: {did}"}, status=410)
        document = {
            "@context": ["https://www.w3.org/ns/did/v1"],
            "id": did,
            "alsoKnownAs": [f"at://{author.handle}"],
            "verificationMethod": [],
            "service": [
                {
                    "id": "#atproto_pds",
                    "type": "AtprotoPersonalDataServer",
                    "serviceEndpoint": self.pds(author),
                }
            ],
        }
        return web.json_response(document, content_type="application/did+ld+json")

    async def blob(self, request: web.Request) -> web.StreamResponse:
        """`com.atproto.sync.getBlob`: an image's own bytes, which its CID verifies."""
        request[KIND] = "blob"
        did, link = request.query.get("did", ""), request.query.get("cid", "")
        if not did or not link:
            return _error("InvalidRequest", "Error: Params must have the properties did and cid")
        author = self._world.author_by_did(did)
        if author is None:
            return _error("RepoNotFound", f"Could not find repo for DID: {did}")
        if error := self._account_error(author):
            return _error(error, f"Repo is not available: {did}")
        image = await asyncio.to_thread(self._events.image_of, did, link)
        if image is None or self._is_gone(image):
            return _error("BlobNotFound", "Blob not found")
        if image.misbehaviour:
            raise web.HTTPFound(f"/bad/{image.misbehaviour}/{image.number}_7.jpg")
        if link in self.corrupt:
            content = bytearray(self._pictures.of(image))
            content[len(content) // 2] ^= 1
            return web.Response(body=bytes(content), content_type="image/jpeg")
        return await self._cdn.send(request, image, kind="blob")

    async def proxied(self, request: web.Request) -> web.StreamResponse:
        """`cdn.bsky.app`: the picture saved again, so that its bytes are not those of its CID."""
        request[KIND] = "proxied"
        did, (link, _, form) = request.match_info["did"], request.match_info["cid"].partition("@")
        image = await asyncio.to_thread(self._events.image_of, did, link)
        if image is None or self._is_gone(image):
            return web.json_response({"error": "BlobNotFound", "message": "not found"}, status=404)
        edge_px = 1000 if "thumbnail" in request.match_info["preset"] else 2000
        name = "JPEG" if form == "jpeg" else "WEBP"
        content = await asyncio.to_thread(self._saved, image, edge_px, name)
        return web.Response(body=content, content_type=f"image/{name.lower()}")

    def _saved(self, image: Image, edge_px: int, form: str) -> bytes:
        with Pillow.open(BytesIO(self._pictures.of(image, edge_px))) as picture:
            file = BytesIO()
            picture.save(file, form, quality=85)
        return file.getvalue()

    def _account_error(self, author: Author) -> str:
        if wished := self.taken_down.get(author.did):
            return wished
        return ERRORS.get(author.fate, "") if self._has_left(author) else ""

    def _has_left(self, author: Author) -> bool:
        """Whether its leaving has been told to anyone."""
        step = self._events.leaves_at(author) * 4 + 2
        return author.fate in LEAVING and self._jetstream.told >= (step + 1) * GAP

    def _is_gone(self, image: Image) -> bool:
        post = self._world.post(image.post)
        return self._jetstream.is_gone(post.author.did, self._world.rkey(post))


def _error(name: str, message: str) -> web.Response:
    return web.json_response({"error": name, "message": message}, status=400)
