import threading

import pytest
import torch
from kernel_cases import patch_kernel

from dppmask.dpp import gaussian_kernel, greedy_map, sample_dpp, sample_kdpp
from dppmask.dpp.threads import LARGE, chain, shares, spread
from dppmask.rng import fold_in


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_short_steps_run_on_one_thread_and_long_ones_on_all(two_threads):
    assert chain(torch.get_num_threads, numbers=LARGE - 1) == 1
    assert chain(torch.get_num_threads, numbers=LARGE) == 2


def test_setting_comes_back_after_an_error(two_threads):
    def fail(*_):
        raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        chain(fail, numbers=1)
    assert torch.get_num_threads() == 2
    with pytest.raises(RuntimeError, match="inside"):
        spread(fail, [torch.zeros(1), torch.zeros(1)])


def test_parts_are_spread_in_order(two_threads):
    together = threading.Barrier(2, timeout=60)

    def work(part):
        together.wait()  # passes only if two parts are worked on at once
        return int(part), torch.get_num_threads()

    assert spread(work, list(torch.arange(4.0))) == [(0, 1), (1, 1), (2, 1), (3, 1)]


def test_gradients_are_worked_out_in_turn(two_threads):
    parts = torch.ones(3, requires_grad=True).split(1)
    assert spread(lambda part: threading.current_thread() is threading.main_thread(), parts) == [True] * 3


def test_number_of_threads_changes_no_result(two_threads):
    features = torch.randn(9, 196, 64, generator=fold_in(0))
    L = patch_kernel(5, num_patches=40)

    def results():
        kernel = gaussian_kernel(features)
        spectral, rejection = (
            sample_kdpp(L, 9, generator=fold_in(1), method=method) for method in ("spectral", "rejection")
        )
        return kernel, greedy_map(kernel, 20).items, spectral, rejection, sample_dpp(L, generator=fold_in(1))

    on_two = results()
    torch.set_num_threads(1)
    on_one = results()
    torch.set_num_threads(2)
    for one, two in zip(on_one, on_two, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("count", "at_most", "lengths"),
    [(0, None, []), (1, None, [1]), (5, None, [3, 2]), (6, 4, [3, 3]), (6, 2, [2, 2, 2]), (3, 0, [1, 1, 1])],
)
def test_shares_cover_all_once(two_threads, count, at_most, lengths):
    parts = shares(count, at_most=at_most)
    assert [part.stop - part.start for part in parts] == lengths
    assert [i for part in parts for i in range(count)[part]] == list(range(count))
