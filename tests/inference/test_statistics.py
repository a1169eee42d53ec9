import time

from services.inference.statistics import Statistics, Total

SLOWEST = {"decode_wait": 0.25, "decode": 0.5, "queue_wait": 1.0, "compute": 2.0}


def test_the_phases_add_up_to_the_call() -> None:
    done = Statistics()
    done.succeed(SLOWEST, 4.0)
    assert (done.queue, done.compute_input) == (Total(1, 1.25), Total(1, 0.5))
    assert (done.compute_infer, done.compute_output) == (Total(1, 2.0), Total(1, 0.25))
    assert done.success == Total(1, 4.0)
    assert abs(done.last_time - time.time()) < 5


def test_what_was_sent_decoded_took_no_decoding() -> None:
    done = Statistics()
    done.succeed({"queue_wait": 1.0, "compute": 2.0}, 3.0)
    done.succeed(SLOWEST, 4.0)
    assert (done.queue, done.compute_input) == (Total(2, 2.25), Total(2, 0.5))


def test_a_clock_that_disagrees_with_itself_takes_no_time_away() -> None:
    done = Statistics()
    done.succeed(SLOWEST, 3.0)
    assert done.compute_output == Total(1, 0.0)
