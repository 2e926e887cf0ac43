"""Our masks inside other people's code. Needs torch alone: the model comes from the caller."""

from dppmask.adapters.hf_vitmae import noise_of_mask, vitmae_noise, vitmae_num_keep, vitmae_tokens
from dppmask.adapters.mae_style import InstalledMasks, use_masks

__all__ = ["InstalledMasks", "noise_of_mask", "use_masks", "vitmae_noise", "vitmae_num_keep", "vitmae_tokens"]
