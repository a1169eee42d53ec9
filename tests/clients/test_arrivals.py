"""Schedules: known before the first call, and with the rate that was asked for."""

import math
import random
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from clients import arrivals
from clients.arrivals import Segment, constant, poisson

rates = st.floats(0, 200) | st.just(0.0)
segments = st.lists(st.builds(Segment, st.floats(0.01, 5), rates, rates), min_size=1, max_size=5)


def expected(segments: list[Segment], until: float) -> float:
    """Calls expected before a moment, by adding up many short stretches."""
    calls, start = 0.0, 0.0
    for segment in segments:
        inside = min(segment.seconds, max(0.0, until - start))
        growth = (segment.to_rate - segment.from_rate) / segment.seconds
        calls += inside * (segment.from_rate + growth * inside / 2)
        start += segment.seconds
    return calls


@given(segments, st.floats(0, 1))
def test_evenly_spaced_calls_have_the_rate_at_every_moment(
    segments: list[Segment], share: float
) -> None:
    assume(expected(segments, math.inf) > 0)
    until = share * sum(segment.seconds for segment in segments)

    times = constant(segments)

    assert times == sorted(times)
    assert abs(sum(at < until for at in times) - expected(segments, until)) <= 1.001
    assert times[-1] <= sum(segment.seconds for segment in segments) * 1.000001


@given(segments, st.integers())
def test_random_calls_are_as_many_as_expected_give_or_take(
    segments: list[Segment], seed: int
) -> None:
    mean = expected(segments, math.inf)
    assume(mean > 0)

    times = poisson(segments, random.Random(seed))

    assert times == sorted(times)
    assert abs(len(times) - mean) <= 8 * math.sqrt(mean) + 8
    assert times == poisson(segments, random.Random(seed))


def test_gaps_of_random_calls_are_spread_as_those_of_independent_callers() -> None:
    times = poisson([Segment(100, 100, 100)], random.Random(1))

    gaps = [later - earlier for earlier, later in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))
    assert mean == pytest.approx(0.01, rel=0.05)
    assert deviation == pytest.approx(mean, rel=0.05)


def test_steps_follow_each_other_and_ramps_go_from_each_rate_to_the_next() -> None:
    assert arrivals.steps([5, 10], 2) == [Segment(2, 5, 5), Segment(2, 10, 10)]
    assert arrivals.ramp([0, 10, 5], 2) == [Segment(2, 0, 10), Segment(2, 10, 5)]


def test_a_recorded_trace_of_times_starts_at_its_first_call() -> None:
    assert arrivals.recorded(["seconds", "1700000000.5", "1700000000", "1700000002"], constant) == [
        0,
        0.5,
        2,
    ]


def test_a_recorded_trace_of_rates_is_drawn_and_its_last_rate_holds_on() -> None:
    assert arrivals.recorded(["second,rate", "10,2", "11,0", "12,4"], constant) == [
        0.0, 0.5, 2.0, 2.25, 2.5, 2.75,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["seconds"],
        ["1", "x"],
        ["1", "nan"],
        ["1", "2,3"],
        ["1,2,3"],
        ["2,5", "1,5"],
        ["1,5", "1,5"],
        ["1,-5"],
        ["1,0"],
        ["1,1e300"],
    ],
)
def test_what_is_no_trace_is_refused(lines: list[str]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 the messages are for people
        arrivals.recorded(lines, constant)
