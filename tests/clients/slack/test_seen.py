"""What has come already is known for a while, in bounded memory."""

import time

from clients.slack.seen import Seen


def test_what_comes_twice_is_first_once() -> None:
    seen = Seen()
    assert [seen.first(key) for key in ("a", "b", "a", "b")] == [True, True, False, False]


def test_the_oldest_is_forgotten_when_there_are_too_many() -> None:
    seen = Seen(most=2)
    assert [seen.first(key) for key in ("a", "b", "c", "c", "a")] == [True, True, True, False, True]
    for number in range(10_000):
        seen.add(number)
    assert len(seen._until) == 2


def test_after_its_time_it_is_forgotten() -> None:
    seen = Seen(seconds=0.05)
    assert seen.first("a")
    time.sleep(0.1)
    assert seen.first("a")
