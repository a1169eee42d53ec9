"""Which signs an emoji's posts have more of than others: log-odds with an informative prior.

After Monroe, Colaresi and Quinn, "Fightin' Words" (Political Analysis 2008): the prior of each sign
is how common it is in all posts, so that rare ones need more evidence. Counts are of authors as
much as of posts: what one author posts often weighs less, and a design effect (Kish) widens the
interval by how much the posts of the same authors agree.
"""

# Q pairs of emoji and sign

import numpy as np
from scipy import special

PRIOR_POSTS = 20.0  # what the prior weighs
Z = 1.96  # of the 95 % interval


def log_odds(
    count_Q: np.ndarray,
    posts_Q: np.ndarray,
    other_Q: np.ndarray,
    other_posts_Q: np.ndarray,
    rate_Q: np.ndarray,
    design_Q: np.ndarray | float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """How much more often posts have the sign, as a logarithm, and the standard error.

    Args:
        count_Q: posts of the emoji with the sign, and `posts_Q` all of its.
        other_Q: posts of others with the sign, and `other_posts_Q` all of these.
        rate_Q: the share of all posts with the sign: the prior.
        design_Q: how many posts count as one, at least 1.

    >>> value, error = log_odds(*map(np.array, ([8.0], [100.0], [10.0], [1000.0], [0.0164])))
    >>> float(value[0].round(2)), float(error[0].round(2))
    (1.97, 0.46)
    """
    prior_Q = PRIOR_POSTS * np.clip(rate_Q, 1e-9, 0.5)
    # Half a post at least: that nobody else said it yet does not mean that nobody ever will.
    have_Q, others_Q = count_Q + prior_Q, other_Q + np.maximum(prior_Q, 0.5)
    lack_Q = np.maximum(posts_Q + PRIOR_POSTS - have_Q, 0.5)
    others_lack_Q = np.maximum(other_posts_Q + PRIOR_POSTS - others_Q, 0.5)
    value_Q = np.log(have_Q / lack_Q) - np.log(others_Q / others_lack_Q)
    return value_Q, np.sqrt(design_Q * (1 / have_Q + 1 / others_Q))


def chance(
    count_Q: np.ndarray,
    posts_Q: np.ndarray,
    other_Q: np.ndarray,
    other_posts_Q: np.ndarray,
    rate_Q: np.ndarray,
) -> np.ndarray:
    """How likely so many posts with the sign are, or more, if others tell how usual it is.

    Poisson's tail, with the prior of `log_odds` in what is usual.
    """
    usual_Q = (other_Q + np.maximum(PRIOR_POSTS * rate_Q, 0.5)) / (other_posts_Q + PRIOR_POSTS)
    expected_Q = np.maximum(posts_Q * usual_Q, 1e-12)
    likely_Q = special.gammainc(np.maximum(count_Q, 1e-9), expected_Q)
    return np.asarray(np.where(count_Q > 0, likely_Q, 1.0))
