"""The card of a model that was trained: what it knows, how well, and what it does not know.

It travels with the model, and is what `emojinet model show` prints; the report stays with the run.
"""

import re
from collections.abc import Iterable, Sequence

from services.shared import vocabulary
from services.trainer.bootstrap import Interval
from services.trainer.facts import BASELINES, MODEL, Facts
from services.trainer.figures import PARTS
from services.trainer.report import BY_NAME, number, share

SHOWN = ("top1", "top5", "top10", "macro_recall", "macro_f1", "mrr", "map", "ece")
FIRST = 10  # emoji by name
TEXT = 300  # characters of what others wrote


def card(facts: Facts) -> str:
    """The card, as Markdown."""
    judged, others = facts.judged, facts.others
    most = sorted(zip(facts.vocabulary.counts, facts.vocabulary.emoji, strict=True), reverse=True)
    frequent = ", ".join(f"{e} {vocabulary.name(e)}" for _, e in most[:FIRST])
    rows = (
        (
            BY_NAME[metric].label,
            *(_figure(metric, e.metrics[metric]) for e in (judged, *others.values())),
        )
        for metric in SHOWN
    )
    before = facts.judgements[facts.split][MODEL].metrics["ece"]
    tail = "; ".join(
        f"{part} {share(judged.metrics[f'macro_recall_{part}'])}"
        for part in PARTS
        if f"macro_recall_{part}" in judged.metrics
    )
    sections = [
        f"# {_cell(facts.name)}",
        f"Suggests {len(facts.vocabulary):,} emoji for pictures, as they were posted with them: "
        f"what people mean by an emoji, not only what a picture shows. Most frequent: {frequent}.",
        f"**What it learned from.** {facts.samples.get('train', 0):,} samples of the data set "
        f"{_cell(facts.dataset)} ({_cell(facts.digest)[:12]}); {facts.corrupt:,} could not be "
        "read.",
        f"**How.** {_cell(facts.recipe['backbone'])} at {_cell(facts.recipe['size_px'])} px, "
        f"recipe {_cell(facts.recipe['name'])}, {facts.images:,} images seen, "
        f"{_cell(facts.created)}.",
        f"**How good it is.** On the {judged.samples:,} samples of the {facts.split} split, with "
        f"95 % intervals by {judged.resamples:,} bootstrap resamples, beside "
        + ", ".join(f"{name} ({BASELINES[name]})" for name in others)
        + ":",
        _table(("figure", "model", *others), rows),
        f"Macro recall by how often an emoji was learned: {tail}.",
        f"**Confidence.** The temperature {facts.temperature:.3f}, fitted on the validation split, "
        f"takes the error of calibration from {share(before)} to {share(judged.metrics['ece'])}.",
        "**What limits it.**",
        _list([*facts.limits(), *BEYOND]),
    ]
    if facts.licences:
        sections += ["**Licences.**", _list(facts.licences)]
    return "\n\n".join(sections) + "\n"


BEYOND = (
    "It repeats how those who posted use emoji, with their habits and prejudices.",
    "It always suggests; a low probability is how it says that nothing fits.",
)


def _figure(metric: str, interval: Interval) -> str:
    return (share if BY_NAME[metric].share else number)(interval)


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _list(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {_cell(sentence)}" for sentence in sentences)


def _cell(value: object) -> str:
    """What somebody else wrote, as text on one line: no mark-up, no HTML, no new section."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(value)[:TEXT]).split())
    return re.sub(r"([\\`*\[\]<>|#!&])", r"\\\1", line)
