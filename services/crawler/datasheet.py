"""What a data set is and is not, for people: after Gebru et al., "Datasheets for Datasets"."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from string import Template

from services.crawler.manifest import Row
from services.shared.shards import SPLITS
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
    facts = {
        "total": sum(summary.samples.values()),
        "posts": summary.posts,
        "authors": len(summary.authors),
        "several": summary.several,
        "merged": summary.merged,
        "vocabulary": len(vocabulary),
        "rare": len(rare),
        "least": RARE,
        "name": name,
        "first": _day(summary.first),
        "last": _day(summary.last),
        "rules": ", ".join(f"{rule} {limit}" for rule, limit in rules.items()),
        "splits": _table("split, samples", summary.samples.items()),
        "sources": _table("source, posts", _common(summary.sources)),
        "segments": _table("segment, posts", _common(summary.segments)),
        "places": _table("where the emoji stood, times", _common(summary.where)),
        "emoji": _table("emoji, samples", sorted(learned, key=lambda of: -of[1])[:SHOWN]),
        "funnel": _table("stage, outcome, count", funnel),
    }
    template = Template(Path(__file__).with_suffix(".md").read_text(encoding="utf-8"))
    return template.substitute({key: _cell(value) for key, value in facts.items()})


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
    lines += [
        "| " + " | ".join(_cell(cell).replace("|", "\\|") for cell in row) + " |" for row in rows
    ]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value) or "(none)"


def _day(microseconds: int | None) -> str:
    if microseconds is None:
        return "unknown times"
    day = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    return day.date().isoformat()
