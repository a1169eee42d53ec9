"""Small data sets to train from, frozen as the crawler freezes them."""

from pathlib import Path

from emojinet.v1 import crawler_service_pb2 as pb
from services.crawler import dataset
from services.crawler.splits import Shares
from tests.crawler.finds import VOCABULARY, finds


def freeze(root: Path, count: int = 40, *, px: int = 24) -> Path:
    """A data set of so many samples, of all emoji of `finds.VOCABULARY`."""
    dataset.write(
        root / "set",
        finds(root / "jpeg", count, px=px),
        vocabulary=VOCABULARY,
        funnel=[],
        rules=pb.KeepRules(),
        name="set",
        shares=Shares(0.2, 0.2),
    )
    return root / "set"
