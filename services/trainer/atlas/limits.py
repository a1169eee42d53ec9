"""What an atlas could not tell: what was missing, and what to do about it."""

from collections.abc import Sequence

import numpy as np

from services.trainer.atlas import meaning
from services.trainer.atlas.corpus import Corpus
from services.trainer.atlas.told import OfEmoji

FEW = 4  # pictures of an emoji: of fewer no figure can be made
NAMED = 8  # emoji in a line that could name hundreds


def told(found: Corpus, emoji: Sequence[OfEmoji], readable_S: np.ndarray, hidden: int) -> list[str]:
    """What could not be told, why, and what to do about it."""
    posts, limits = found.posts, list[str]()
    if found.removed:
        limits.append(
            "Left out, since they were taken down after the data set was frozen: "
            f"{found.removed:,} of its pictures."
        )
    if unreadable := int((~readable_S).sum()):
        limits.append(
            f"Left out of all figures, since they cannot be read: {unreadable:,} of the pictures."
        )
    if hidden:
        limits.append(
            f"Not shown are {hidden:,} of the pictures: unreadable, with faces that were to be "
            "dropped, or more than a page has room for."
        )
    if not emoji:
        limits.append(
            "The model sees no emoji in any of these pictures: take another model, or others."
        )
    if found.kind == "pictures":
        limits.append(
            "These are pictures without posts: each emoji is what the model sees, and nothing "
            "here says what people mean. Crawl or import posts for that."
        )
        return limits
    if found.kind == "folder":
        limits.append(
            "A folder has no words, authors or times: meanings are judged by pictures alone, "
            "each picture as if by an author of its own, and there is no drift."
        )
    elif not posts.authors_known:
        limits.append(
            "No author is known, so each post counts as if by another: what one author posts "
            "often looks like a meaning. Import a column `author`."
        )
    elif (authors := len(set(posts.author.tolist()))) < meaning.LEAST_AUTHORS:
        limits.append(
            f"All posts are of {authors} author{'s' * (authors != 1)}: nobody's habits can be told "
            f"from a meaning by fewer than {meaning.LEAST_AUTHORS}, so none is judged. Crawl more."
        )
    if found.kind == "data set" and not np.isfinite(posts.seconds).any():
        limits.append("No post has a time, so there is no drift. Import a column `time`.")
    if found.kind == "data set" and not any(posts.terms):
        limits.append("No post has words or hashtags: meanings are judged by pictures alone.")
    if few := [one.emoji for one in emoji if one.pictures < FEW]:
        limits.append(
            f"{len(few)} emoji have fewer than {FEW} pictures, too few to judge: "
            f"{' '.join(few[:NAMED])}{' …' * (len(few) > NAMED)} Crawl more of them."
        )
    unjudged = sum(not one.meaning.judged for one in emoji)
    if unjudged:
        limits.append(
            f"{unjudged} of {len(emoji)} emoji are used by fewer than {meaning.LEAST_AUTHORS} "
            "authors: no score is given."
        )
    return limits
