"""Pictures without end, each distinct, from the photographs that packages ship.

A picture is a scene (a crop of one photograph) with patches of others, under light of its own, with
a sensor's noise. The emoji that it is posted with chooses, mostly, photograph and tint, so that a
net can learn something from them. Duplicates are made from their root as people make them: saved
again at another quality, at another size, or cropped.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import cache, cached_property
from hashlib import blake2b
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image as Pillow
from PIL import ImageChops

from services.shared import photographs, pixels
from tests.standin.world import Image, World

Pixels = npt.NDArray[np.uint8]
SCENE_EDGE_PX, PATCH_EDGE_PX = 512, 224
DRAWINGS = Path("data/drawings/noto")
COMMENT = b"\xff\xfe"
MIDDLE = 128


@cache
def _photographs(edge_px: int) -> list[Pillow.Image]:
    """All that are installed, small enough to be cropped quickly."""
    found = []
    for path in photographs.installed():
        picture = Pillow.fromarray(pixels.decode(path.read_bytes()))
        picture.thumbnail((edge_px, edge_px))
        found.append(picture)
    return found


@cache
def _sensor() -> Pillow.Image:
    """A sensor's noise, of which each picture takes a window."""
    noise = np.random.default_rng(0).normal(MIDDLE, 3, (1200, 1600)).round().astype(np.uint8)
    return Pillow.merge("RGB", [Pillow.fromarray(noise)] * 3)


class Pictures:
    """The bytes of a world's images, made when they are asked for; safe to call from threads."""

    def __init__(
        self,
        world: World,
        *,
        bank: int = 0,
        drawings: bool = False,
        cache_bytes: int = 128 << 20,
    ) -> None:
        """A stand-in's pictures.

        Args:
            bank: With a number, only so many are rendered; others repeat their pixels with
                another comment in the file, for proofs of scale: they are distinct to SHA-256,
                not to a perceptual hash.
            drawings: Draw the emoji into its pictures, where `make drawings` has run.
        """
        self._world = world
        self._bank = bank
        self._drawings = drawings
        self._limit = cache_bytes
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0
        self._lock = Lock()

    def of(self, image: Image, edge_px: int = 0) -> bytes:
        """The image's JPEG; with `edge_px`, scaled down so that its longer edge has so many."""
        if edge_px and edge_px < max(image.width, image.height):
            return _saved(_fitted(self.of(image), edge_px), 85)
        if image.variant in ("original", "same"):
            return self._root(image)
        key = f"{image.root}/{image.variant}/{image.amount}"
        return self._kept_or(key, lambda: _varied(image, self._root(image)))

    def _root(self, image: Image) -> bytes:
        if not self._bank:
            return self._kept_or(str(image.root), lambda: self.render(image.root, image.emoji))
        number = image.root % self._bank
        base = self._kept_or(f"bank/{number}", lambda: self.render(number, image.emoji))
        mark = f"picture {image.root}".encode()
        return base[:2] + COMMENT + (len(mark) + 2).to_bytes(2) + mark + base[2:]

    def _kept_or(self, key: str, make: Callable[[], bytes]) -> bytes:
        with self._lock:
            if (found := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return found
        content = make()
        with self._lock:
            if key not in self._kept:
                self._kept[key] = content
                self._size += len(content)
            while self._size > self._limit and len(self._kept) > 1:
                self._size -= len(self._kept.popitem(last=False)[1])
        return content

    @cached_property
    def _seed(self) -> int:
        return self._world.seed

    def render(self, root: int, emoji: str) -> bytes:
        """A root's JPEG."""
        image = self._world.image(root)
        digest = blake2b(f"{self._seed}/picture/{root}".encode(), digest_size=16).digest()
        draw = np.random.Generator(np.random.SFC64(int.from_bytes(digest)))
        theme = int.from_bytes(blake2b(emoji.encode(), digest_size=4).digest())
        scene = _scene(draw, theme, image.width, image.height)
        if self._drawings:
            _draw_emoji(draw, scene, emoji)
        lit = ImageChops.multiply(scene, _light(draw, theme, scene.size))
        noisy = ImageChops.add(lit, _noise(draw, scene.size), offset=-MIDDLE)
        return _saved(noisy, int(draw.integers(80, 93)))


def _scene(draw: np.random.Generator, theme: int, width: int, height: int) -> Pillow.Image:
    """A crop of a photograph, with three to six patches of others."""
    every, small = _photographs(SCENE_EDGE_PX), _photographs(PATCH_EDGE_PX)
    main = theme % len(every) if draw.random() < 0.7 else int(draw.integers(len(every)))
    scene = _crop(draw, every[main], width, height, 0.5)
    for _ in range(int(draw.integers(4, 8))):
        patch_width = int(width * draw.uniform(0.15, 0.45))
        patch_height = int(height * draw.uniform(0.15, 0.45))
        source = small[int(draw.integers(len(small)))]
        patch = _crop(draw, source, patch_width, patch_height, 0.3)
        at = (
            int(draw.integers(0, width - patch_width + 1)),
            int(draw.integers(0, height - patch_height + 1)),
        )
        scene.paste(patch, at)
    return scene


def _crop(
    draw: np.random.Generator, source: Pillow.Image, width: int, height: int, least: float
) -> Pillow.Image:
    """A window of at least this share of a photograph's edges, often mirrored, at this size."""
    share = draw.uniform(least, 1.0)
    window = min(source.width, source.height * width / height) * share
    across, down = window, window * height / width
    left = draw.uniform(0, source.width - across)
    top = draw.uniform(0, source.height - down)
    box = (left, top, left + across, top + down)
    crop = source.resize((width, height), Pillow.Resampling.BILINEAR, box)
    return crop.transpose(Pillow.Transpose.FLIP_LEFT_RIGHT) if draw.random() < 0.5 else crop


def _light(draw: np.random.Generator, theme: int, size: tuple[int, int]) -> Pillow.Image:
    """Light and shade over a picture, in the tint of its emoji."""
    tint = np.array([theme >> shift & 255 for shift in (8, 16, 24)]) / 255
    colour = (0.8 + 0.2 * tint + draw.normal(0, 0.05, 3)).clip(0, 1)
    shade = (0.5 + 0.5 * draw.random((6, 6, 1))) * colour * 255
    return Pillow.fromarray(shade.astype(np.uint8)).resize(size, Pillow.Resampling.BILINEAR)


def _noise(draw: np.random.Generator, size: tuple[int, int]) -> Pillow.Image:
    """A window of a sensor's noise around `MIDDLE`."""
    whole = _sensor()
    left, top = (int(draw.integers(max(1, whole.width - edge))) for edge in size)
    return whole.crop((left, top, left + size[0], top + size[1]))


def _draw_emoji(draw: np.random.Generator, scene: Pillow.Image, emoji: str) -> None:
    """Puts a free-licensed drawing of the emoji into the picture, if there is one."""
    name = "-".join(f"{ord(character):04x}" for character in emoji if character != "\ufe0f")
    path = DRAWINGS / f"{name}.png"
    if not path.is_file():
        return
    edge = int(min(scene.size) * draw.uniform(0.3, 0.6))
    with Pillow.open(path) as file:
        drawing = file.convert("RGBA").resize((edge, edge))
    at = (int(draw.integers(scene.width - edge)), int(draw.integers(scene.height - edge)))
    scene.paste(drawing, at, drawing)


def _varied(image: Image, root: bytes) -> bytes:
    """A root's duplicate that is not the same bytes."""
    whole: Pixels = simplejpeg.decode_jpeg(root)
    if image.variant == "quality":
        return _encoded(whole, int(image.amount))
    picture = Pillow.fromarray(whole)
    if image.variant == "scale":
        return _saved(picture.resize((image.width, image.height), Pillow.Resampling.BICUBIC), 88)
    left, top = (picture.width - image.width) // 2, (picture.height - image.height) // 2
    return _saved(picture.crop((left, top, left + image.width, top + image.height)), 88)


def _fitted(content: bytes, edge_px: int) -> Pillow.Image:
    picture = Pillow.fromarray(simplejpeg.decode_jpeg(content))
    picture.thumbnail((edge_px, edge_px))
    return picture


def _saved(picture: Pillow.Image, quality: int) -> bytes:
    return _encoded(np.asarray(picture), quality)


def _encoded(whole: Pixels, quality: int) -> bytes:
    content: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(whole), quality, colorspace="RGB", colorsubsampling="420"
    )
    return content
