import subprocess
import sys
import time
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.trainer.ledger import ACCOUNTS, REMEDIES, Ledger

ROOT = Path(__file__).parents[2]
# What a run does: for so long this account, and within it these others.
Work = tuple[str, float, list[Any]]
works: st.SearchStrategy[Work] = st.recursive(
    st.tuples(st.sampled_from(ACCOUNTS), st.floats(0, 1e4), st.just([])),
    lambda inner: st.tuples(
        st.sampled_from(ACCOUNTS), st.floats(0, 1e4), st.lists(inner, max_size=4)
    ),
)


class Clock:
    """One that goes when it is told to."""

    def __init__(self, began: float = 0.0) -> None:
        self.seconds = began

    def __call__(self) -> float:
        return self.seconds


def do(ledger: Ledger, clock: Clock, work: Work, expected: dict[str, float]) -> None:
    account, seconds, inner = work
    with ledger.charge(account):
        clock.seconds += seconds
        expected[account] += seconds
        for each in inner:
            do(ledger, clock, each, expected)
            clock.seconds += seconds
            expected[account] += seconds


@given(st.floats(0, 100), st.lists(works, max_size=5))
def test_every_second_is_charged_once_to_the_innermost_account(
    began: float, jobs: list[Work]
) -> None:
    clock = Clock(began)
    ledger, expected = Ledger(clock), dict.fromkeys(ACCOUNTS, 0.0) | {"start": began}
    for work in jobs:
        do(ledger, clock, work, expected)
    assert ledger.seconds == pytest.approx(expected, abs=1e-6)
    assert sum(ledger.seconds.values()) == pytest.approx(clock.seconds)


@pytest.mark.parametrize("account", ACCOUNTS)
def test_a_delay_is_charged_where_it_happens(account: str) -> None:
    ledger = Ledger()
    with ledger.charge("compute"):
        before = ledger.seconds
        with ledger.charge(account):
            time.sleep(0.2)
        after = ledger.seconds
    spent = {name: after[name] - before[name] for name in ACCOUNTS}
    assert spent[account] >= 0.2
    assert sum(spent.values()) - spent[account] < 0.08


def test_the_accounts_add_up_to_the_time_since_the_process_began() -> None:
    program = "import time; time.sleep(0.4); from services.trainer.ledger import Ledger;"
    program += "print(sum(Ledger().seconds.values()))"
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    took = time.monotonic() - began
    assert 0.4 < float(done.stdout) < took + 0.02  # of the process's own clock, in hundredths


def test_an_error_closes_the_account() -> None:
    clock = Clock()
    ledger = Ledger(clock)
    with pytest.raises(ZeroDivisionError), ledger.charge("compute"), ledger.charge("evaluate"):
        raise ZeroDivisionError
    clock.seconds += 5
    assert ledger.seconds["start"] == 5


def test_what_earlier_processes_spent_is_added() -> None:
    clock = Clock(2.0)
    ledger = Ledger(clock)
    ledger.restore({"compute": 100.0, "start": 3.0, "abolished": 7.0})
    assert ledger.seconds == dict.fromkeys(ACCOUNTS, 0.0) | {"compute": 100.0, "start": 5.0}


def test_an_unknown_account_is_refused() -> None:
    with pytest.raises(KeyError, match="lunch"), Ledger().charge("lunch"):
        pass


def test_another_thread_may_not_charge() -> None:
    ledger, refused = Ledger(), list[str]()

    def charge() -> None:
        try:
            with ledger.charge("data_wait"):
                pass
        except RuntimeError as error:
            refused.append(str(error))

    thread = Thread(target=charge)
    thread.start()
    thread.join()
    assert refused == ["A ledger belongs to the thread that made it."]


@pytest.mark.parametrize("account", ACCOUNTS)
def test_the_bottleneck_is_where_most_of_the_time_went(account: str) -> None:
    ledger = Ledger(Clock(25.0 if account != "start" else 100.0))
    ledger.restore({account: 75.0} if account != "start" else {})
    share = "75%" if account != "start" else "100%"
    assert ledger.bottleneck() == f"{share} of 100.0 s went to {REMEDIES[account]}."


def test_a_ledger_of_no_time_has_a_bottleneck_too() -> None:
    assert Ledger(Clock()).bottleneck().startswith("0% of 0.0 s")
