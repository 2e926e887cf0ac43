"""Masks are the same in a loader's worker as in the main process, which has used its threads before."""

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from dppmask.masks import DPPMask, KDPPMask, MaskContext
from dppmask.rng import fold_in


class Masks(Dataset):
    """One batch of masks per item, chosen where the item is read."""

    def __init__(self, strategy):
        self.strategy = strategy

    def __len__(self):
        return 4

    def __getitem__(self, index):
        tokens = torch.randn(3, 64, 16, generator=fold_in(0, index))
        mask = self.strategy(MaskContext.from_tokens(tokens), 48, generator=fold_in(1, index))
        return mask.masked


@pytest.mark.parametrize("strategy", [DPPMask(0.1), KDPPMask()], ids=repr)
def test_workers_choose_what_the_main_process_does(strategy):
    masks = Masks(strategy)
    here = [masks[index] for index in range(len(masks))]
    there = list(DataLoader(masks, batch_size=None, num_workers=2))
    for mine, theirs in zip(here, there, strict=True):
        assert torch.equal(mine, theirs)
