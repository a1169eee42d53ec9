"""What a crawl of the stand-in should have in the end, by the world's own account."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from tests.standin.misbehaviours import TABLE, Ends
from tests.standin.standin import Standin
from tests.standin.world import Image, Post

Source = Literal["instagram", "bluesky"]


class Wanted(NamedTuple):
    """A picture that a crawl should have."""

    post: Post
    image: Image
    certain: bool
    """False where good crawlers may differ on whether to take it."""


def wanted(
    standin: Standin, source: Source, *, max_hashtags: int = 5, min_side_px: int = 0
) -> Iterator[Wanted]:
    """The pictures that the article's rules keep and nothing forbids, once all has been told.

    Duplicates are all there: `image.root` says whose they are. Caps by emoji and author are not
    applied, since which of many are taken is the crawler's choice.
    """
    for post in standin.truth():
        if not post.keeps(max_hashtags) or post.deleted:
            continue
        if source == "bluesky" and not stays(standin, post):
            continue
        for image in shown(standin, post, source):
            ends = TABLE[image.misbehaviour].ends if image.misbehaviour else Ends.PICTURE
            if image.noai or min(image.width, image.height) < min_side_px:
                continue
            if source == "instagram" and standin.host_closed(image):
                continue
            if ends in (Ends.PICTURE, Ends.EITHER):
                yield Wanted(post, image, ends is Ends.PICTURE)


def stays(standin: Standin, post: Post) -> bool:
    """Whether a post is there on Bluesky, and may be used, after the end of the stream."""
    return standin.events.created(post) and not post.author.left and not post.sensitive


def shown(standin: Standin, post: Post, source: Source) -> tuple[Image, ...]:
    """The images of a post that a source shows."""
    if source == "instagram" and not standin.instagram.carousels:
        return post.images[:1]
    return post.images
