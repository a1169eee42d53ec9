"""Small data sets, and the atlases of them."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from emojinet.v1 import crawler_service_pb2 as pb
from services.crawler import dataset
from services.crawler.dataset import Find
from services.crawler.keep import Kept, Mention, Where
from services.crawler.post import PostImage
from services.shared import pixels
from services.shared.vocabulary import Vocabulary
from services.trainer.atlas import build
from services.trainer.events import Events

EMOJI = ("💉", "🍕", "🚗", "🐶")


def find(
    folder: Path,
    number: int,
    emoji: Sequence[str],
    *,
    author: str = "",
    seconds: float = 0.0,
    tags: Sequence[str] = (),
    words: Sequence[str] = (),
    uri: str = "",
    segment: str = "",
) -> Find:
    """A picture of noise, in a post."""
    draw = np.random.default_rng(number)
    sha256 = hashlib.sha256(b"%d" % number).digest()
    folder.mkdir(exist_ok=True)
    path = folder / f"{sha256.hex()}.jpg"
    path.write_bytes(pixels.jpeg(draw.integers(0, 256, (40, 40, 3), np.uint8)))
    post = Kept(
        source="import",
        uri=uri or f"https://posts.example/{number}",
        author=hashlib.sha256(author.encode()).digest()[:16] if author else b"",
        time_seconds=seconds,
        segment=segment,
        mentions=[Mention(one, Where.TEXT) for one in emoji],
        hashtags=tags,
        words=words,
        images=[PostImage("https://posts.example/x.jpg")],
    )
    return Find(sha256, draw.bytes(32), 100, 400, 400, path, [post])


def frozen(root: Path, finds: Sequence[Find], emoji: Sequence[str] = EMOJI) -> Path:
    dataset.write(
        root / "set",
        finds,
        vocabulary=Vocabulary(tuple(emoji), (0,) * len(emoji)),
        funnel=[],
        rules=pb.KeepRules(),
        name="set",
    )
    return root / "set"


def atlas(path: Path, root: Path, starter: Path, **more: Any) -> dict[str, Any]:
    """What is told of it; the page is at `root/atlas/atlas.html`."""
    job = build.Job(
        path=path, output=root / "atlas", data=root / "data", registry=starter.parents[1], **more
    )
    with closing(Events(job.output)) as events:
        build.build(job, events)
    said: dict[str, Any] = json.loads((job.output / "atlas.json").read_bytes())
    return said
