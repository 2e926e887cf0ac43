"""Who is hidden: the mask value, what a strategy reads, and the strategies. Needs torch alone."""

from dppmask.masks.attention import AttMask
from dppmask.masks.base import Mask, MaskContext, MaskRatio, MaskStrategy, Tokens, num_masked_for, take
from dppmask.masks.block import BlockMask
from dppmask.masks.dpp import DPPMask
from dppmask.masks.kdpp import KDPPMask
from dppmask.masks.schedule import PurgeSchedule
from dppmask.masks.uniform import RandomMask
from dppmask.masks.wrappers import Coarse

__all__ = [
    "AttMask",
    "BlockMask",
    "Coarse",
    "DPPMask",
    "KDPPMask",
    "Mask",
    "MaskContext",
    "MaskRatio",
    "MaskStrategy",
    "PurgeSchedule",
    "RandomMask",
    "Tokens",
    "num_masked_for",
    "take",
]
