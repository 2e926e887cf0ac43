"""How good an encoder or a mask is: protocols, each with its baselines, on frozen features and on masks."""

from dppmask.evaluation.backgrounds import Backgrounds
from dppmask.evaluation.base import Compute, Part, Protocol, Result, Subject
from dppmask.evaluation.clustering import Clustering
from dppmask.evaluation.extract import extract
from dppmask.evaluation.knn import KNN
from dppmask.evaluation.linear import Linear
from dppmask.evaluation.linear_fast import LinearFast
from dppmask.evaluation.linear_sweep import LinearSweep
from dppmask.evaluation.mask_statistics import MaskStatistics
from dppmask.evaluation.run import evaluate

__all__ = [
    "KNN",
    "Backgrounds",
    "Clustering",
    "Compute",
    "Linear",
    "LinearFast",
    "LinearSweep",
    "MaskStatistics",
    "Part",
    "Protocol",
    "Result",
    "Subject",
    "evaluate",
    "extract",
]
