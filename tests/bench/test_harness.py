import time

import pytest
import torch

from dppmask.bench.harness import (
    FEWEST_ROUNDS,
    MOST_CALLS,
    machine,
    measure_in_turns,
    on_threads,
    write_rows,
)


def test_functions_take_turns():
    log = []
    measure_in_turns(
        {name: lambda name=name: log.append(name) or time.sleep(0.01) for name in "ab"}, repeats=3
    )
    assert "".join(log) == "aabb" + "ab" * 3


def test_a_sleep_takes_as_long_as_it_sleeps_and_no_processor_time():
    (timing,) = measure_in_turns({"": lambda: time.sleep(0.02)}, repeats=5, warmup=1).values()
    assert timing.median >= 0.02
    assert timing.cpu < 0.01
    assert timing.low <= timing.median <= timing.high
    assert (timing.repeats, timing.warmup, timing.calls) == (5, 1, 1)
    assert timing.columns()["median_ms"] == pytest.approx(1e3 * timing.median, rel=1e-3)


def test_short_functions_are_timed_many_at_a_time():
    calls = []
    (timing,) = measure_in_turns({"": lambda: calls.append(0)}, repeats=2, warmup=20).values()
    assert timing.calls == MOST_CALLS
    assert len(calls) == 20 + 2 * MOST_CALLS
    assert timing.median < 1e-3, "of one call"


def test_when_the_time_is_up_a_few_rounds_are_made_even_so():
    (timing,) = measure_in_turns({"": lambda: time.sleep(0.006)}, repeats=50, warmup=1, limit=0.0).values()
    assert timing.repeats == FEWEST_ROUNDS
    (timing,) = measure_in_turns({"": lambda: time.sleep(0.006)}, repeats=2, warmup=1, limit=0.0).values()
    assert timing.repeats == 2


def test_threads_are_given_back_even_after_an_error():
    before = torch.get_num_threads()

    def fail():
        with on_threads(before + 1):
            assert torch.get_num_threads() == before + 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == before


def test_versions_of_what_is_missing_are_empty():
    facts = machine("pillow", "no_such_package")
    assert facts["pillow"]
    assert facts["no_such_package"] == ""


def test_rows_with_different_columns_make_one_table(tmp_path):
    path = tmp_path / "new" / "rows.csv"
    write_rows(path, [{"a": 1}, {"a": "x, y", "b": 2.5}])
    assert path.read_text() == 'a,b\n1,\n"x, y",2.5\n'
