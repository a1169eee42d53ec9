"""What all crawls of one service share."""

from dataclasses import dataclass
from pathlib import Path

from services.crawler.database import Database
from services.crawler.fetch import Fetcher
from services.crawler.frontier import Frontier
from services.crawler.metrics import Metrics
from services.crawler.removals import Removals
from services.crawler.store import Store
from services.crawler.web import Web
from services.shared.decoders import Decoders


@dataclass(frozen=True, kw_only=True, slots=True)
class Tools:
    """The state on disk, and the ways to network, decoders and metrics."""

    folder: Path
    """Holds everything: the database, the pictures, the data sets."""
    database: Database
    frontier: Frontier
    removals: Removals
    store: Store
    web: Web
    fetcher: Fetcher
    decoders: Decoders
    metrics: Metrics
    key: bytes
    """Of the hashes of authors."""
