"""Drawings of emoji as a data set: some vendors' to learn from, another's to be judged on.

    python -m services.trainer.drawings
    python -m services.trainer.glyphs OUT --without twemoji

writes the folder form `split/emoji_name/KEY.jpg`, 500 emoji. `test` has the drawings of the vendor
left out, as they are, on white. `train` has many views of each drawing of the others: recoloured,
turned, on white or plain colours, and between two vendors' drawings; nothing is mirrored, since ▶
is not ◀. `validation` is for the temperature: a drawing of each emoji made strange, in ways that no
view to learn from is, so that the model doubts it about as it doubts an unseen vendor's. Drawings
that were kept from learning doubt more: an emoji known in one style alone is taken for another in
the style that is asked (`LOG.md`).
"""

import argparse
import hashlib
import io
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from services.shared import shards
from services.shared.cores import cores
from services.shared.errors import AlreadyExists, NotReady
from services.shared.starter import PREPROCESSING
from services.shared.vocabulary import inventory
from services.trainer import drawings

SEED = 20151109
EMOJI = 500
NOT_DRAWN = "geometric"  # the subgroup of plain shapes, which differ only in size
VIEWS = 16
VIEW_PX, WHOLE_PX = 160, 256
MARGIN = PREPROCESSING.crop  # the share of a picture's edge that is seen: the drawing fills it
STRANGE = 2  # changes at once; with 1 or 3 the temperature comes out the same within 6 %
BICUBIC = Image.Resampling.BICUBIC
WHITE = (255, 255, 255)

Random = np.random.Generator
Colour = tuple[int, int, int]


@cache
def chosen(folder: Path = drawings.FOLDER) -> tuple[str, ...]:
    """500 emoji: of those that every vendor draws, in the inventory's order, in equal steps.

    Raises:
        NotReady: there are not so many drawings.
    """
    names = [vendor.name for vendor in drawings.VENDORS]
    drawn = [
        emoji.text
        for emoji in inventory()
        if emoji.subgroup != NOT_DRAWN
        and all(drawings.find(name, emoji.text, folder) for name in names)
    ]
    if len(drawn) < EMOJI:
        raise NotReady(f"Every vendor draws only {len(drawn)} emoji in {folder}: make drawings")
    return tuple(drawn[place * len(drawn) // EMOJI] for place in range(EMOJI))


def write(
    out: Path, without: str, *, views: int = VIEWS, folder: Path = drawings.FOLDER, count: int = 0
) -> None:
    """Writes the data set, 200 views a second and core, all of it or nothing.

    Args:
        without: the vendor to be judged on, of whom nothing is learned.
        views: of each drawing to learn from.
        count: takes only the first emoji of the 500.

    Raises:
        AlreadyExists: `out` is there.
        NotReady: drawings are missing.
        StorageFailed: the disk is full or failing.
    """
    if out.exists():
        raise AlreadyExists(f"There is {out} already; choose another name.", name=str(out))
    emoji = chosen(folder)[: count or EMOJI]
    seen = [vendor.name for vendor in drawings.VENDORS if vendor.name != without]
    staged = out.with_name(f".{out.name}.staged")
    shutil.rmtree(staged, ignore_errors=True)  # of a process that was killed
    with shards.writable(out), ThreadPoolExecutor(cores()) as pool:

        def one(number: int) -> None:
            text = emoji[number]
            name = shards.folder_name(text)
            sources = {vendor: _drawing(vendor, text, folder) for vendor in [*seen, without]}
            _keep(staged / "test" / name, [_on_white(sources.pop(without))])
            lent = sources[seen[number % len(seen)]]
            _keep(staged / "validation" / name, [_on_white(_strange(lent, _random(text)))])
            for vendor, drawn in sources.items():
                others = [other for v, other in sources.items() if v != vendor]
                random = _random(f"{vendor} {text}")
                _keep(staged / "train" / name, _views(drawn, others, views, random))

        for _ in pool.map(one, range(len(emoji))):
            pass
        staged.rename(out)


def _random(name: str) -> Random:
    """A generator of its own for whatever has a name."""
    return np.random.default_rng([SEED, *hashlib.sha256(name.encode()).digest()])


def _drawing(vendor: str, emoji: str, folder: Path) -> Image.Image:
    path = drawings.find(vendor, emoji, folder)
    assert path is not None  # it was chosen
    drawn = Image.open(path).convert("RGBA")
    return ImageOps.pad(drawn, (max(drawn.size),) * 2)


def on_white(vendor: str, emoji: str, folder: Path = drawings.FOLDER) -> bytes:
    """The drawing as it is, as a JPEG on white, of which a network sees what the drawing fills."""
    return _jpeg(_on_white(_drawing(vendor, emoji, folder)))


def _keep(folder: Path, pictures: Iterable[Image.Image]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        jpeg = _jpeg(picture)
        (folder / f"{hashlib.sha256(jpeg).hexdigest()}.jpg").write_bytes(jpeg)


def _jpeg(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=92)
    return file.getvalue()


def _on_white(drawn: Image.Image) -> Image.Image:
    edge = round(WHOLE_PX * MARGIN)
    picture, at = Image.new("RGB", (WHOLE_PX, WHOLE_PX), WHITE), (WHOLE_PX - edge) // 2
    large = drawn.resize((edge, edge), BICUBIC)
    picture.paste(large, (at, at), large)
    return picture


# -- views ----------------------------------------------------------------------------------------


def _views(
    drawn: Image.Image, others: list[Image.Image], count: int, random: Random
) -> Iterator[Image.Image]:
    for _ in range(count):
        one = drawn
        if others and random.random() < 0.5:
            one = _between(drawn, others[int(random.integers(len(others)))], random)
        yield _placed(_recoloured(one, random), random)


def _between(one: Image.Image, other: Image.Image, random: Random) -> Image.Image:
    """How yet another vendor may draw it: both faintly, or the one in the other's colours."""
    edge = max(one.width, other.width)
    one, other = (drawn.resize((edge, edge), BICUBIC) for drawn in (one, other))
    if random.random() < 0.5:
        return Image.blend(one, other, random.uniform(0.2, 0.8))
    light, _, _ = one.convert("RGB").convert("YCbCr").split()
    _, blue, red = other.convert("RGB").convert("YCbCr").split()
    return _with_alpha(Image.merge("YCbCr", (light, blue, red)), one)


def _with_alpha(colours: Image.Image, drawn: Image.Image) -> Image.Image:
    whole = colours.convert("RGBA")
    whole.putalpha(drawn.getchannel("A"))
    return whole


def _recoloured(drawn: Image.Image, random: Random) -> Image.Image:
    """In other light, hue or shading, without colours, or flat."""
    colours = drawn.convert("RGB")
    if random.random() < 0.8:
        for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            colours = enhance(colours).enhance(float(np.exp(random.uniform(-0.4, 0.4))))
    if random.random() < 0.5:
        colours = _turned(colours, int(random.integers(-12, 13)))
    if random.random() < 0.1:
        colours = colours.convert("L").convert("RGB")
    if random.random() < 0.15:
        colours = ImageOps.posterize(colours, int(random.integers(2, 5)))
    if random.random() < 0.15:
        colours = colours.filter(ImageFilter.MedianFilter(5))
    if random.random() < 0.25:
        colours = _shaded(colours, random)
    return _with_alpha(colours, drawn)


def _turned(colours: Image.Image, by: int) -> Image.Image:
    """All hues by so many of 256 parts of the circle: so little that ❤ does not become 💛."""
    hue, saturation, value = colours.convert("HSV").split()
    hue = hue.point([(step + by) % 256 for step in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def _shaded(colours: Image.Image, random: Random) -> Image.Image:
    """Lit from one side, as what is drawn in three dimensions is."""
    down, across = np.mgrid[-0.5 : 0.5 : 1j * colours.height, -0.5 : 0.5 : 1j * colours.width]
    angle, strength = random.uniform(0, 2 * np.pi), random.uniform(0.2, 0.8)
    light_HW = 1 + strength * (across * np.cos(angle) + down * np.sin(angle))
    lit_HW3 = np.asarray(colours) * light_HW[..., None]
    return Image.fromarray(lit_HW3.clip(0, 255).astype(np.uint8))


def _placed(drawn: Image.Image, random: Random) -> Image.Image:
    """On white or a plain colour; moved, turned, stretched; often coarse, or blurred."""
    behind: Colour = WHITE
    if random.random() < 0.4:
        red, green, blue = random.integers(0, 256, 3).tolist()
        behind = (red, green, blue)
    picture = Image.new("RGB", drawn.size, behind)
    picture.paste(drawn, (0, 0), drawn)
    coarse = random.random() < 0.4
    edge = int(random.integers(50, 90)) if coarse else VIEW_PX
    matrix_22, size = _shape(random)
    room = max(0.06, (1 - size) / 2) * MARGIN
    target_2 = edge * (0.5 + random.uniform(-room, room, 2))
    back_22 = np.linalg.inv(matrix_22 * (edge * MARGIN / drawn.width))
    shift_2 = drawn.width / 2 - back_22 @ target_2
    if drawn.width > 1.5 * edge:  # the transformation below takes no mean
        picture = picture.filter(ImageFilter.GaussianBlur(0.35 * drawn.width / edge / size))
    affine = (*back_22[0], shift_2[0], *back_22[1], shift_2[1])
    picture = picture.transform(
        (edge, edge), Image.Transform.AFFINE, affine, BICUBIC, fillcolor=behind
    )
    if coarse:
        return picture.resize((VIEW_PX, VIEW_PX), BICUBIC)
    if random.random() < 0.2:
        return picture.filter(ImageFilter.GaussianBlur(random.uniform(0.3, 1.5)))
    return picture


def _shape(random: Random) -> tuple[np.ndarray, float]:
    """A matrix that scales, turns, stretches and slants; and how much it scales."""
    size, stretch = random.uniform(0.7, 1.15), float(np.exp(random.uniform(-0.15, 0.15)))
    angle = np.deg2rad(random.uniform(-15, 15)) * (random.random() < 0.5)
    cos, sin, slant = np.cos(angle), np.sin(angle), random.uniform(-0.12, 0.12)
    turn_22 = np.array([[cos, slant - sin], [sin, cos]])
    return turn_22 @ np.diag([size * stretch, size / stretch]), size


# -- strange ones ---------------------------------------------------------------------------------


def _strange(drawn: Image.Image, random: Random) -> Image.Image:
    """In perspective, and with some of what no view to learn from has."""
    colours, edge = drawn.convert("RGB"), drawn.width
    for change in random.choice(7, STRANGE, replace=False).tolist():
        match change:
            case 0:
                colours = _turned(colours, int(random.integers(25, 232)))
            case 1:
                colours = ImageOps.solarize(colours, int(random.integers(90, 190)))
            case 2:
                colours = colours.filter(ImageFilter.CONTOUR)
            case 3:
                few = int(random.integers(14, 26))
                colours = colours.resize((few, few), Image.Resampling.BOX)
                colours = colours.resize((edge, edge), BICUBIC)
            case 4:
                blur = edge / 64 * random.uniform(1.5, 3)
                colours = colours.filter(ImageFilter.GaussianBlur(blur))
            case 5:
                bands = colours.split()
                colours = Image.merge("RGB", [bands[band] for band in random.permutation(3)])
            case _:
                colours = colours.convert("L").convert("RGB")
    corners_42 = edge * np.array([(0, 0), (0, 1), (1, 1), (1, 0)])
    moved = (corners_42 + edge * random.uniform(-0.12, 0.12, (4, 2))).ravel().tolist()
    changed = _with_alpha(colours, drawn)
    return changed.transform(drawn.size, Image.Transform.QUAD, moved, BICUBIC)


def main() -> None:
    """Writes a data set."""
    parser = argparse.ArgumentParser(prog="python -m services.trainer.glyphs")
    parser.add_argument("out", type=Path, help="the folder to write")
    names = [vendor.name for vendor in drawings.VENDORS]
    parser.add_argument("--without", choices=names, required=True, help="the vendor to judge on")
    parser.add_argument("--views", type=int, default=VIEWS, help="of each drawing to learn from")
    flags = parser.parse_args()
    write(flags.out, flags.without, views=flags.views)


if __name__ == "__main__":
    main()
