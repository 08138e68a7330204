"""Methods that align a generator with preferences, rewards or constraints."""

from discrepancy.methods.alignment.baselines import dpo_loss, penalised_rewards
from discrepancy.methods.alignment.dph_rl import DPHRL, RehearsalLoss, divergence_from_reference, dph_loss
from discrepancy.methods.alignment.energy_based import BooleanScorer, EnergyBasedModel, LinearScorer, RewardScorer
from discrepancy.methods.alignment.f_dpg import FDPG, FDPGLoss, FixedProposal, f_dpg_loss, pseudo_rewards
from discrepancy.methods.alignment.f_dpo import FDPO, FDPOLoss, f_dpo_loss, implicit_reward
from discrepancy.methods.alignment.group_relative import GRPO, grpo_loss
from discrepancy.methods.alignment.importance import divergence_to_target, effective_sample_size, log_normaliser
from discrepancy.methods.alignment.moment_targets import fit_moments, tilt_to_moments
from discrepancy.methods.alignment.nash_baselines import best_response, extragradient, mirror_descent, nash_md
from discrepancy.methods.alignment.nash_mirror_prox import nash_mirror_prox
from discrepancy.methods.alignment.pass_at_k import pass_at_k
from discrepancy.methods.alignment.penalties import DivergencePenalty
from discrepancy.methods.alignment.preference_games import NashResult, PreferenceGame, exploitability, preference_game
from discrepancy.methods.alignment.preference_loss import PreferenceLoss
from discrepancy.methods.alignment.preference_pairs import PreferencePairs
from discrepancy.methods.alignment.presampling import PresampleSplit, presample_split
from discrepancy.methods.alignment.pseudo_reward_baselines import OtherSamples, PastRewards
from discrepancy.methods.alignment.regularised_optimum import regularised_optimum
from discrepancy.methods.alignment.response_policy import CategoricalPolicy, CausalResponses, ResponsePolicy
from discrepancy.methods.alignment.self_play import NashMirrorProx

__all__ = [
    "DPHRL",
    "FDPG",
    "FDPO",
    "GRPO",
    "BooleanScorer",
    "CategoricalPolicy",
    "CausalResponses",
    "DivergencePenalty",
    "EnergyBasedModel",
    "FDPGLoss",
    "FDPOLoss",
    "FixedProposal",
    "LinearScorer",
    "NashMirrorProx",
    "NashResult",
    "OtherSamples",
    "PastRewards",
    "PreferenceGame",
    "PreferenceLoss",
    "PreferencePairs",
    "PresampleSplit",
    "RehearsalLoss",
    "ResponsePolicy",
    "RewardScorer",
    "best_response",
    "divergence_from_reference",
    "divergence_to_target",
    "dph_loss",
    "dpo_loss",
    "effective_sample_size",
    "exploitability",
    "extragradient",
    "f_dpg_loss",
    "f_dpo_loss",
    "fit_moments",
    "grpo_loss",
    "implicit_reward",
    "log_normaliser",
    "mirror_descent",
    "nash_md",
    "nash_mirror_prox",
    "pass_at_k",
    "penalised_rewards",
    "preference_game",
    "presample_split",
    "pseudo_rewards",
    "regularised_optimum",
    "tilt_to_moments",
]
