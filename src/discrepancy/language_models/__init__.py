"""What methods on language models share: log-probabilities of responses, generation, and policies small enough to enumerate."""

from discrepancy.language_models.aggregation import sequence_mean, sequence_sum, token_mean
from discrepancy.language_models.causal import CausalPolicy
from discrepancy.language_models.characters import CharacterTokenizer
from discrepancy.language_models.generation import Generation, generate
from discrepancy.language_models.log_probs import logits_of, sequence_log_probs, token_log_probs
from discrepancy.language_models.policies import MarkovPolicy, TabularPolicy
from discrepancy.language_models.small import fit_language_model, tiny_gpt2

__all__ = [
    "CausalPolicy",
    "CharacterTokenizer",
    "Generation",
    "MarkovPolicy",
    "TabularPolicy",
    "fit_language_model",
    "generate",
    "logits_of",
    "sequence_log_probs",
    "sequence_mean",
    "sequence_sum",
    "tiny_gpt2",
    "token_log_probs",
    "token_mean",
]
