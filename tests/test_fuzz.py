"""Random combinations of all options against the simulator: a short run of what `make fuzz` does."""

import pytest

from tests.fuzz import run
from tests.fuzz.simulator import Cosine, Plain, walked


@pytest.mark.usefixtures("lenient")
def test_random_combinations_do_what_the_documents_say():
    found = run.fuzz(seed=0, count=4)
    assert found["crossings"] == len(run.EDITS) ** 2
    assert found["compared"] > 10000


def test_the_simulator_walks_the_documented_cycles():
    """The doctest of `cosine_warm_restarts`, and halves that Python rounds to the even number."""
    schedule = Cosine(3, 2)
    assert [round(schedule.eta(walked(schedule, count)), 2) for count in range(5)] == [1.0, 0.5, 0.0, 1.0, 0.9]
    assert [walked(Cosine(3, 1.5), count).period for count in (2, 3, 7)] == [3, 4, 6]
    assert Plain(lambda count: 0.5**count).eta(walked(Plain(0.5), 3)) == 0.125
