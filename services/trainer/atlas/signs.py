"""Signs that posts carry beside their emoji: words, hashtags, and what their pictures look like.

A sign counts for an emoji unless it is literal: explained by the names of an emoji of the post, or
seen by the starter as what such an emoji shows. What is left may be a meaning that people gave it.
"""

# P posts, M mentions of an emoji in a post, V signs, T (mention, sign), S pictures, E emoji

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse, special

from services.trainer.atlas.corpus import Corpus, Posts
from services.trainer.atlas.groups import Looks
from services.trainer.atlas.literal import Literal

LEAST_AUTHORS = 2  # of a word, to be looked at
LEAST_BELIEF = 0.25  # in a class, to be what a picture shows
SURELY, LIFTED = 0.15, 5.0  # belief in the emoji that makes a picture literal; times its mean
LOOK_SURELY, LOOK_LIFTED = 0.015, 3.0  # the same, for the mean over all pictures of a look
CLASS_SHOWS = 0.05  # of a class's pictures that show the emoji, for the class to be literal
FACET_Z, FACET_ODDS = 3.0, 2.0  # of a sign that goes with what the emoji shows
MOST = 0.2  # of an emoji's posts, to be another meaning of its looks
SURE_LOOK = 1e-3  # how likely a look is so frequent by chance, to be an emoji's
NEAR_SURELY = 0.06
LEAST_SHOWN, ALIKE = 3, 0.1  # pictures that show an emoji; the share of looks like those


class Mentions(NamedTuple):
    """Each emoji of each post."""

    post_M: np.ndarray
    emoji_M: np.ndarray
    weight_M: np.ndarray
    """One over the root of how many posts with the emoji the author has: many weigh less."""


class Signs(NamedTuple):
    """The signs of one channel, words or pictures."""

    channel: str
    names: Sequence[str]
    kinds: Sequence[str]
    """word, hashtag, class or look."""
    in_PV: sparse.csr_array
    """Which posts carry which."""
    mention_T: np.ndarray
    sign_T: np.ndarray
    """Which mentions have which that are not literal."""
    literal_M: np.ndarray
    """Whether a mention has one that is."""


def mentions(posts: Posts, emoji: int) -> Mentions:
    """Of all posts, in their order."""
    post_M = np.repeat(np.arange(len(posts)), [len(own) for own in posts.emoji])
    emoji_M = np.fromiter((one for own in posts.emoji for one in own), np.int64)
    pair_M = posts.author[post_M] * emoji + emoji_M
    _, inverse, counts = np.unique(pair_M, return_inverse=True, return_counts=True)
    return Mentions(post_M, emoji_M, counts[inverse] ** -0.5)


def words(posts: Posts, of: Mentions, literal: Literal) -> Signs:
    """Words that more than one author uses; a hashtag is the word that it is made of."""
    authors: dict[str, set[int]] = {}
    tagged: Counter[str] = Counter()
    bare = [tuple(dict.fromkeys(t.removeprefix("#") for t in terms)) for terms in posts.terms]
    for author, own, terms in zip(posts.author.tolist(), bare, posts.terms, strict=True):
        for term in own:
            authors.setdefault(term, set()).add(author)
        tagged.update(t.removeprefix("#") for t in terms if t.startswith("#"))
        tagged.subtract(t for t in terms if not t.startswith("#"))
    names = sorted(term for term, who in authors.items() if len(who) >= LEAST_AUTHORS)
    place = {term: number for number, term in enumerate(names)}
    shown = [f"#{name}" if tagged[name] > 0 else name for name in names]
    rows = [[place[term] for term in own if term in place] for own in bare]
    pairs: list[tuple[int, int]] = []
    literal_M = np.zeros(len(of.post_M), bool)
    for mention, post in enumerate(of.post_M.tolist()):
        emoji = int(of.emoji_M[mention])
        for number in rows[post]:
            # As a hashtag, in which words are run together: that is no less literal as a word.
            term = f"#{names[number]}"
            explained = literal.term(emoji, term)
            literal_M[mention] |= explained
            if not explained and not any(literal.term(e, term) for e in posts.emoji[post]):
                pairs.append((mention, number))
    kinds = ["hashtag" if name.startswith("#") else "word" for name in shown]
    return Signs("words", shown, kinds, _matrix(rows, len(names)), *_columns(pairs), literal_M)


def without_facets(signs: Signs, of: Mentions, literal_M: np.ndarray, emoji: int) -> Signs:
    """The signs without those that go with what an emoji shows: #pepperoni is no second 🍕.

    A sign goes if an emoji's posts that carry it are much more often literal than its others.
    """
    key_T = of.emoji_M[signs.mention_T] * max(1, len(signs.names)) + signs.sign_T
    _, pair_T, posts_Q = np.unique(key_T, return_inverse=True, return_counts=True)
    literal_Q = np.bincount(pair_T, literal_M[signs.mention_T], len(posts_Q))
    all_E = np.maximum(np.bincount(of.emoji_M, minlength=emoji), 1)
    rate_T = (np.bincount(of.emoji_M, literal_M, emoji) / all_E)[of.emoji_M[signs.mention_T]]
    posts_T, own_T = posts_Q[pair_T], (literal_Q / posts_Q)[pair_T]
    spread_T = np.sqrt(np.maximum(rate_T * (1 - rate_T), 1e-9) / posts_T)
    odds_T = (own_T + 0.01) / (1.01 - own_T) / ((rate_T + 0.01) / (1.01 - rate_T))
    kept_T = ~((own_T - rate_T > FACET_Z * spread_T) & (odds_T > FACET_ODDS))
    return signs._replace(mention_T=signs.mention_T[kept_T], sign_T=signs.sign_T[kept_T])


class Sight(NamedTuple):
    """What the starter makes of the pictures."""

    belief_SE: np.ndarray
    """In each emoji of the corpus, or one of the same name."""
    near_SE: np.ndarray
    """The same, with all of Unicode's subgroup: the starter takes one fruit for another."""
    class_S: np.ndarray
    """What each shows most surely; -1 where that is not sure."""
    seen_S: np.ndarray
    """Which emoji each looks like most surely, behind the classes; -1 where that is not sure."""
    class_names: Sequence[str]
    """And behind them, of the emoji that pictures look like."""
    shown_CE: np.ndarray
    """How much of a class, or of what looks like an emoji, shows an emoji."""


def pictures(corpus: Corpus, of: Mentions, looks: Looks, sight: Sight) -> Signs:
    """Looks, fine and coarse, and classes."""
    posts = corpus.posts
    bases = np.cumsum([0, looks.fine, looks.coarse])
    tokens_S = _tokens(looks, sight, bases)
    count = int(bases[2] + len(sight.class_names))
    literal_VE = _literal_looks(tokens_S, count, sight)
    literal_VE[: looks.fine] |= _alike(posts, of, looks, sight)
    literal_VE[: looks.fine] |= _own_looks(posts, of, looks, literal_VE[: looks.fine])
    literal_VE[bases[2] :] |= sight.shown_CE >= CLASS_SHOWS
    base_E = np.nan_to_num(sight.belief_SE).mean(0)
    literal_SE = sight.belief_SE >= np.maximum(SURELY, LIFTED * base_E)
    there_S = looks.fine_S >= 0
    literal_SE[there_S] |= literal_VE[looks.fine_S[there_S]]
    pairs: set[tuple[int, int]] = set()
    literal_M = np.zeros(len(of.post_M), bool)
    for mention, post in enumerate(of.post_M.tolist()):
        everyone = list(posts.emoji[post])
        for s in posts.pictures[post]:
            literal_M[mention] |= literal_SE[s, of.emoji_M[mention]]
            if not literal_SE[s, everyone].any():
                kept = (t for t in tokens_S[s] if not literal_VE[t, everyone].any())
                pairs.update((mention, token) for token in kept)
    rows = [sorted({t for s in shown for t in tokens_S[s]}) for shown in posts.pictures]
    kinds = ["look"] * int(bases[2]) + ["class"] * len(sight.class_names)
    names = [*looks.names, *sight.class_names]
    in_PV = _matrix(rows, count)
    return Signs("pictures", names, kinds, in_PV, *_columns(sorted(pairs)), literal_M)


def _tokens(looks: Looks, sight: Sight, bases: np.ndarray) -> list[list[int]]:
    """The signs of each picture, by number."""
    tokens: list[list[int]] = []
    columns = (looks.fine_S, looks.coarse_S, sight.class_S, sight.seen_S)
    places = (bases[0], bases[1], bases[2], bases[2])
    for row in zip(*columns, strict=True):
        own = [int(base + one) for base, one in zip(places, row, strict=True) if one >= 0]
        tokens.append(own if row[0] >= 0 else [])
    return tokens


def _literal_looks(tokens_S: Sequence[Sequence[int]], count: int, sight: Sight) -> np.ndarray:
    """(V, E): whether pictures with a sign, on the whole, look like the emoji to the starter."""
    in_SV = _matrix(tokens_S, count)
    size_V1 = np.maximum(in_SV.sum(0), 1)[:, None]
    literal_VE = np.zeros((count, sight.belief_SE.shape[1]), bool)
    for belief_SE, least in ((sight.belief_SE, LOOK_SURELY), (sight.near_SE, NEAR_SURELY)):
        believed_SE = np.nan_to_num(belief_SE)
        mean_VE = in_SV.T @ believed_SE / size_V1
        literal_VE |= mean_VE >= np.maximum(least, LOOK_LIFTED * believed_SE.mean(0))
    return literal_VE


def _alike(posts: Posts, of: Mentions, looks: Looks, sight: Sight) -> np.ndarray:
    """(K, E) The looks that are most like those pictures of an emoji's posts that show it.

    The starter takes some pictures of a thing for another; their features know better.
    """
    believed_SE = np.nan_to_num(sight.belief_SE)
    surely_SE = believed_SE >= np.maximum(SURELY, LIFTED * believed_SE.mean(0))
    middle_KD = looks.middles()
    shown: list[set[int]] = [set() for _ in range(surely_SE.shape[1])]
    for post, emoji in zip(of.post_M.tolist(), of.emoji_M.tolist(), strict=True):
        shown[emoji].update(s for s in posts.pictures[post] if surely_SE[s, emoji])
    alike_KE = np.zeros((looks.fine, surely_SE.shape[1]), bool)
    for emoji, own in enumerate(shown):
        if len(own) >= LEAST_SHOWN:
            near_K = middle_KD @ looks.embedded_SD[sorted(own)].mean(0)
            alike_KE[:, emoji] = near_K >= np.quantile(near_K, 1 - ALIKE)
    return alike_KE


def _own_looks(posts: Posts, of: Mentions, looks: Looks, literal_KE: np.ndarray) -> np.ndarray:
    """(K, E) The looks that are taken for what an emoji shows, though the starter sees it not.

    An emoji's other looks, those that its posts have more of than others, may be a meaning if they
    are few. While all together are more than that, the most frequent is what the emoji shows.
    """
    emoji, fine = literal_KE.shape[1], looks.fine
    rows = [sorted({int(looks.fine_S[s]) for s in shown} - {-1}) for shown in posts.pictures]
    in_PK = _matrix(rows, fine)
    weight_ME = _matrix([[one] for one in of.emoji_M.tolist()], emoji).multiply(
        of.weight_M[:, None]
    )
    count_KE = (in_PK[of.post_M].T @ weight_ME.tocsr()).toarray()
    share_KE = count_KE / np.maximum(np.asarray(weight_ME.sum(0)).ravel(), 1e-9)
    usual_K1 = np.asarray(in_PK.sum(0)).ravel()[:fine, None] / max(1, len(posts))
    chance_KE = special.gammainc(
        np.maximum(count_KE, 1e-9),
        np.maximum(usual_K1 * count_KE / np.maximum(share_KE, 1e-9), 1e-9),
    )
    surely_KE = (count_KE > 0) & (chance_KE < SURE_LOOK) & ~literal_KE
    more_KE = np.where(surely_KE, share_KE - usual_K1, 0.0)
    own_KE = np.zeros((fine, emoji), bool)
    for one in np.flatnonzero(more_KE.sum(0) > MOST).tolist():
        order_K = np.argsort(-more_KE[:, one], kind="stable")
        rest_K = more_KE[order_K, one].sum() - np.cumsum(more_KE[order_K, one])
        own_KE[order_K[: int((rest_K > MOST).sum()) + 1], one] = True
    return own_KE


def _matrix(rows: Sequence[Sequence[int]], columns: int) -> sparse.csr_array:
    ends = np.cumsum([0, *(len(row) for row in rows)])
    flat = np.fromiter((one for row in rows for one in row), np.int64)
    ones = np.ones(len(flat), np.float64)
    return sparse.csr_array((ones, flat, ends), shape=(len(rows), max(1, columns)))


def _columns(pairs: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    flat = np.array(pairs, np.int64).reshape(-1, 2)
    return flat[:, 0], flat[:, 1]
