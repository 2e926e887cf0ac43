"""Determinantal point processes on batches of kernels: mathematics on tensors, in torch alone.

Leading batch dimensions are optional everywhere; float32 and float64 are computed in at least that precision,
also under autocast.
"""

from dppmask.dpp.greedy import GreedySelection, greedy_map, greedy_map_gaussian
from dppmask.dpp.kernels import cosine_kernel, gaussian_kernel
from dppmask.dpp.likelihood import expected_size, log_esp, log_prob, marginal_kernel
from dppmask.dpp.pairs import pair_marginals
from dppmask.dpp.sampling import kdpp_from_noise, sample_dpp, sample_kdpp

__all__ = [
    "GreedySelection",
    "cosine_kernel",
    "expected_size",
    "gaussian_kernel",
    "greedy_map",
    "greedy_map_gaussian",
    "kdpp_from_noise",
    "log_esp",
    "log_prob",
    "marginal_kernel",
    "pair_marginals",
    "sample_dpp",
    "sample_kdpp",
]
