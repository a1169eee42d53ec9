"""What a data set is and is not, for people: after Gebru et al., "Datasheets for Datasets"."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from services.crawler.manifest import Row
from services.crawler.shards import SPLITS
from services.shared.vocabulary import Vocabulary

FunnelCount = tuple[str, str, int]  # stage, outcome, how many
RARE = 10  # samples to learn an emoji from, below which a model hardly can
SHOWN = 20


class Summary:
    """What the datasheet says in numbers, counted while samples are written."""

    def __init__(self) -> None:
        self.samples = dict.fromkeys(SPLITS, 0)
        self.labels: Counter[str] = Counter()
        """Samples to learn each emoji from."""
        self.sources: Counter[str] = Counter()
        self.segments: Counter[str] = Counter()
        self.where: Counter[str] = Counter()
        self.posts = self.merged = self.several = 0
        self.authors: set[str] = set()
        self.first: int | None = None
        self.last: int | None = None

    def add(self, split: str, rows: Sequence[Row]) -> None:
        """Counts a sample."""
        labels = rows[0]["labels"]
        self.samples[split] += 1
        self.several += len(labels) > 1
        self.merged += rows[0]["pictures"] - 1
        if split == "train":
            self.labels.update(labels)
        for row in rows:
            self.posts += 1
            self.sources[row["source"]] += 1
            self.segments[row["segment"]] += 1
            self.where.update(row["where"])
            if row["author"]:
                self.authors.add(row["author"])
            if row["time"] is not None:
                self.first = min(row["time"], self.first or row["time"])
                self.last = max(row["time"], self.last or row["time"])


def text(
    name: str,
    summary: Summary,
    vocabulary: Vocabulary,
    funnel: Sequence[FunnelCount],
    rules: Mapping[str, int],
) -> str:
    """The datasheet in Markdown."""
    learned = [(emoji, summary.labels[emoji]) for emoji in vocabulary.emoji]
    rare = [emoji for emoji, count in learned if count < RARE]
    most = sorted(learned, key=lambda entry: -entry[1])[:SHOWN]
    total = sum(summary.samples.values())
    return f"""# Data set {name}

Written by the program that froze the data set. Questions after Gebru et al., "Datasheets for
Datasets" (2021).

## Motivation

Made to learn which emoji people put to which pictures. The labels are what people wrote, not what
a picture shows: 😂 stands at what someone found funny.

## Composition

{total:,} pictures, each with the set of emoji it was posted with, from {summary.posts:,} posts by
{len(summary.authors):,} known authors. {summary.several:,} have more than one emoji.

{_table("split, samples", summary.samples.items())}
{_table("source, posts", _common(summary.sources))}
{_table("segment, posts", _common(summary.segments))}
{_table("where the emoji stood, times", _common(summary.where))}
The posts are from {_day(summary.first)} to {_day(summary.last)}. The vocabulary has
{len(vocabulary)} emoji; {len(rare)} of them have fewer than {RARE} samples to learn from. Most
frequent in the training split:

{_table("emoji, samples", most)}
Pictures are of what people chose to show in public, and may show people. Nothing was sought out
by who posted it, and no attribute of a person is a label. Authors are keyed hashes; names,
mentions, comments and the metadata of files are not kept.

## Collection process

Posts were read from the sources above, kept by the rules
({", ".join(f"{rule} {limit}" for rule, limit in rules.items())}), and their pictures
fetched as robots.txt and the sources' signals against machine learning allow. What became of all:

{_table("stage, outcome, count", funnel)}
## Preprocessing, cleaning, labelling

Each picture was decoded once, turned upright, converted to sRGB and stored as JPEG with a shorter
edge of at most 256 pixels. {summary.merged:,} further copies and near-duplicates were merged into
the picture of their largest original, and their emoji united. A sample's labels are the emoji of
its posts that are in the vocabulary.

## Uses

For models that suggest emoji, and for looking at what emoji mean in pictures. Splits share neither
an author nor a near-duplicate. Not for recognising people, nor for judging them; the frequencies
are those of a source and a time, and of the rules above.

## Distribution

The pictures belong to those who made them. Before passing the data set on, see what each source's
terms and the law of the place allow.

## Maintenance

What its authors delete, or others ask to be taken down, is named in `excluded.txt`, which every
reader honours at once; the next compaction removes its bytes. It never comes back.
"""


def plot(path: Path, counts: Sequence[int]) -> None:
    """Draws how unevenly the emoji are used, if matplotlib is installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(1, len(counts) + 1), sorted(counts, reverse=True))
    axes.set(
        xlabel="emoji, the most frequent first", ylabel="samples to learn from", yscale="symlog"
    )
    figure.savefig(path)


def _common(counts: Counter[str]) -> list[tuple[str, int]]:
    """The most frequent, in an order that does not depend on how they were counted."""
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:SHOWN]


def _table(titles: str, rows: Iterable[Sequence[object]]) -> str:
    columns = titles.split(", ")
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|") or "(none)"


def _day(microseconds: int | None) -> str:
    if microseconds is None:
        return "unknown times"
    day = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    return day.date().isoformat()
