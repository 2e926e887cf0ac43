"""What is timed, and against whom: one line a task and implementation."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from dppmask.bench import arithmetic, rivals
from dppmask.bench.arithmetic import Shape, Work
from dppmask.bench.inputs import MASKS, OURS, STRATEGIES, Batch, draw_masks
from dppmask.dpp import gaussian_kernel, greedy_map, greedy_map_gaussian, sample_kdpp
from dppmask.dpp.sampling import Method
from dppmask.rng import fold_in


class Case(NamedTuple):
    """One implementation of a task.

    Attributes:
        task: What is done; equal for all that are compared.
        implementation: Who does it; ours begin with the name of this package.
        dtype: In which precision.
        prepare: From the batch to the call that is timed.
        work: What the task asks of a machine, by the shape; None = not worked out, and for rivals.
        package: What has to be installed.
    """

    task: str
    implementation: str
    dtype: str
    prepare: Callable[[Batch], Callable[[], object]]
    work: Callable[[Shape], Work] | None = None
    package: str = "torch"


Prepare = Callable[[Batch], Callable[[], object]]

KERNEL = "Gaussian kernel"
GREEDY = "greedy, kernel given"
FROM_FEATURES = "greedy, features given"
EXACT = "exact k-DPP, kernel given"


def _mask(name: str) -> Prepare:
    def prepare(batch: Batch) -> Callable[[], object]:
        num_masked = batch.shape.num_patches - batch.shape.num_keep
        return draw_masks(STRATEGIES[name](), batch.features, num_masked)

    return prepare


def _kernel(batch: Batch) -> Callable[[], object]:
    return partial(gaussian_kernel, batch.features)


def _greedy(batch: Batch) -> Callable[[], object]:
    return partial(greedy_map, batch.kernel, batch.shape.num_keep)


def _from_features(batch: Batch) -> Callable[[], object]:
    return partial(greedy_map_gaussian, batch.features, batch.shape.num_keep)


def _exact(method: Method) -> Prepare:
    def prepare(batch: Batch) -> Callable[[], object]:
        return partial(sample_kdpp, batch.kernel, batch.shape.num_keep, generator=fold_in(1), method=method)

    return prepare


def _numpy_kernel(batch: Batch) -> Callable[[], object]:
    images = batch.images()
    return lambda: [rivals.numpy_kernel(image) for image in images]


def _numpy_greedy(batch: Batch) -> Callable[[], object]:
    kernels = batch.kernels()
    return lambda: [rivals.numpy_greedy(kernel, batch.shape.num_keep) for kernel in kernels]


def _numpy_from_features(batch: Batch) -> Callable[[], object]:
    images = batch.images()
    return lambda: [rivals.numpy_greedy(rivals.numpy_kernel(image), batch.shape.num_keep) for image in images]


def _torch_greedy(batch: Batch) -> Callable[[], object]:
    return partial(rivals.torch_greedy, batch.kernel, batch.shape.num_keep)


def _dppy(batch: Batch) -> Callable[[], object]:
    kernels, random_state = batch.kernels(), np.random.RandomState(0)
    return lambda: [rivals.dppy_sample(kernel, batch.shape.num_keep, random_state) for kernel in kernels]


CASES = (
    Case(KERNEL, OURS, "float32", _kernel, arithmetic.gaussian_kernel),
    Case(KERNEL, "NumPy loop", "float64", _numpy_kernel),
    Case(GREEDY, OURS, "float32", _greedy, arithmetic.greedy_from_kernel),
    Case(GREEDY, "torch loop", "float32", _torch_greedy),
    Case(GREEDY, "NumPy loop", "float64", _numpy_greedy),
    Case(FROM_FEATURES, OURS, "float32", _from_features, arithmetic.greedy_from_features),
    Case(FROM_FEATURES, "NumPy loop", "float64", _numpy_from_features),
    Case(EXACT, OURS, "float64", _exact("auto")),
    Case(EXACT, f"{OURS} spectral", "float64", _exact("spectral"), arithmetic.exact_spectral),
    Case(EXACT, f"{OURS} rejection", "float64", _exact("rejection"), arithmetic.exact_rejection),
    Case(EXACT, "DPPy", "float64", _dppy, package="dppy"),
    Case(MASKS["random"], OURS, "float32", _mask("random")),
    Case(MASKS["greedy"], OURS, "float32", _mask("greedy")),
    Case(MASKS["exact"], OURS, "float64", _mask("exact")),
)
