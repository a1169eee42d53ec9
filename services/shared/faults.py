"""Places at which a test may let the process die, as `kill -9` would: `EMOJINET_FAULT=name:count`.

The proofs that nothing is lost kill a crawl, or a training, at each of them.
"""

import os

CRAWLER = (
    "page-begun",  # within the transaction of a page
    "page-stored",
    "picture-fetched",
    "picture-written",  # its file is there, its row is not
    "fates-begun",  # within the transaction of a few pictures' fates
    "fates-stored",
    "removal-stored",  # taken down, not yet excluded from data sets
    "removal-applied",  # excluded, its files not yet deleted
    "dataset-staged",  # complete, under another name
    "dataset-named",  # in its place, not yet known to the database
)
TRAINER = (
    # The first three twice for every checkpoint: for its tensors, then for its manifest.
    "checkpoint-begun",  # half of the file is written
    "checkpoint-staged",  # complete, under another name
    "checkpoint-placed",  # in its place
    "checkpoint-pruning",  # an old one has no manifest any more, and still its tensors
)

_name, _, _count = os.environ.get("EMOJINET_FAULT", "").partition(":")
_left = int(_count or 1)


def point(name: str) -> None:
    """Ends the process at once if it is to die here, now."""
    global _left
    if name == _name:
        _left -= 1
        if _left == 0:
            os._exit(137)
