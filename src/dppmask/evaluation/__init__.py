"""How good an encoder or a mask is: protocols, each with its baselines, on frozen features and on masks."""

from dppmask.evaluation.alignment import Alignment
from dppmask.evaluation.backgrounds import Backgrounds
from dppmask.evaluation.base import Compute, Part, Protocol, Result, Subject
from dppmask.evaluation.clustering import Clustering
from dppmask.evaluation.extract import extract
from dppmask.evaluation.finetune import Finetune
from dppmask.evaluation.knn import KNN
from dppmask.evaluation.linear import Linear
from dppmask.evaluation.linear_fast import LinearFast
from dppmask.evaluation.linear_sweep import LinearSweep
from dppmask.evaluation.lost_objects import LostObjects
from dppmask.evaluation.mask_statistics import MaskStatistics
from dppmask.evaluation.multilabel import MultiLabel
from dppmask.evaluation.multilabel_finetune import MultiLabelFinetune
from dppmask.evaluation.reconstructions import Reconstructions
from dppmask.evaluation.run import evaluate
from dppmask.evaluation.variant_examples import VariantExamples

__all__ = [
    "KNN",
    "Alignment",
    "Backgrounds",
    "Clustering",
    "Compute",
    "Finetune",
    "Linear",
    "LinearFast",
    "LinearSweep",
    "LostObjects",
    "MaskStatistics",
    "MultiLabel",
    "MultiLabelFinetune",
    "Part",
    "Protocol",
    "Reconstructions",
    "Result",
    "Subject",
    "VariantExamples",
    "evaluate",
    "extract",
]
