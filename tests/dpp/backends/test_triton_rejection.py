import torch
from kernel_cases import patch_kernel

from dppmask.dpp import kdpp_from_noise, rejection
from dppmask.dpp.backends import ops
from dppmask.rng import fold_in


def test_kdpp_samples_are_those_of_the_cpu(interpreted, use_backend, monkeypatch):
    """The same α, numbers and order of items: only float32 rounding could tell the draws of a GPU apart."""
    L = patch_kernel(2, num_patches=18, dtype=torch.float32)
    size, noise = torch.tensor([5, 3]), torch.rand(2, 18, generator=fold_in(0))
    expected = kdpp_from_noise(L, size, noise, method="rejection")
    calls = []

    def draws(K, uniforms, size, active):
        calls.append(K.shape)
        return interpreted.sequential_draws(K.float(), uniforms, size, active)

    monkeypatch.setattr(rejection, "ROUNDS", {"cpu": (2,) * 20})  # interpreted draws take their time
    use_backend("torch")  # for marginal kernels
    monkeypatch.setattr(ops, "sequential_draws", draws)
    assert torch.equal(kdpp_from_noise(L, size, noise, method="rejection"), expected)
    assert calls
