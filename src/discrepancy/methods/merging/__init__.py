"""Merging fine-tunings of one base model into one model that does what each of them does."""

from discrepancy.methods.merging.adamerging import AdaMerging
from discrepancy.methods.merging.baselines import DARE, TIES, Averaging, Slerp, TaskArithmetic
from discrepancy.methods.merging.checkpoints import adapted
from discrepancy.methods.merging.coefficients import Descent, Layer, LearnedMerge, Level, Task
from discrepancy.methods.merging.continual_merger import ContinualMerger, ContinualStep, History, StateAndCurrent
from discrepancy.methods.merging.divmerge import DivMerge, average_normalized_performance, divergence_matrix, task_divergences
from discrepancy.methods.merging.encoder_decoder import GreedyDecoding
from discrepancy.methods.merging.gcwm import GCWM, Gate, GatedLayer, GatedMerge
from discrepancy.methods.merging.geometry_conflict import ConflictReport, Energy, GeometryConflict, LayerConflict, MergeWarning
from discrepancy.methods.merging.merge import Merge, MergedModel
from discrepancy.methods.merging.normalisation import recalibrated
from discrepancy.methods.merging.predictions import Direct, EmptyGenerationWarning, GreedyGeneration
from discrepancy.methods.merging.task_vectors import TaskVectors
from discrepancy.methods.merging.wudi import WUDI, EarlyStopped, LeastSquares

__all__ = [
    "DARE",
    "GCWM",
    "TIES",
    "WUDI",
    "AdaMerging",
    "Averaging",
    "ConflictReport",
    "ContinualMerger",
    "ContinualStep",
    "Descent",
    "Direct",
    "DivMerge",
    "EarlyStopped",
    "EmptyGenerationWarning",
    "Energy",
    "Gate",
    "GatedLayer",
    "GatedMerge",
    "GeometryConflict",
    "GreedyDecoding",
    "GreedyGeneration",
    "History",
    "Layer",
    "LayerConflict",
    "LearnedMerge",
    "LeastSquares",
    "Level",
    "Merge",
    "MergeWarning",
    "MergedModel",
    "Slerp",
    "StateAndCurrent",
    "Task",
    "TaskArithmetic",
    "TaskVectors",
    "adapted",
    "average_normalized_performance",
    "divergence_matrix",
    "recalibrated",
    "task_divergences",
]
