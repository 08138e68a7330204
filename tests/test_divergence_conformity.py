"""Every registered divergence, and many with other options, held to the contract, one check a case."""

import math

import pytest
import torch

from discrepancy import KL, Bregman, CustomDivergence, Divergence, Hoelder, HoelderPseudo, JensenShannon, Renyi, Tsallis
from discrepancy._registry import registered
from discrepancy.divergences import (
    Alpha,
    AlphaBeta,
    ElementwiseGenerator,
    FermiDirac,
    ItakuraSaito,
    NegativeEntropy,
    SkewedJensenShannon,
    TotalVariation,
)
from discrepancy.testing import check_divergence
from discrepancy.testing.divergence_case import DivergenceCase
from discrepancy.testing.divergence_checks import CHECKS


def entropy(t):
    return t * torch.log(t)


def fourth(x):
    return x**4


OTHERS = [
    Alpha(-1.5),
    Alpha(3),
    2 * KL() + JensenShannon(),
    KL().skewed(0.2),
    KL().skewed(0.2).reversed(),
    TotalVariation() + 0.5 * KL(),
    SkewedJensenShannon(0.1),
    SkewedJensenShannon(0.9),
    CustomDivergence(entropy, name="mine"),
    *[Renyi(a) for a in (0, 0.01, 0.999999, 1, 1.5, 40.0, math.inf)],
    Renyi(0.3).reversed(),
    Renyi(2).reversed(),
    *[Tsallis(a) for a in (0, 1, 2.5)],
    Tsallis(0.4).reversed(),
    *[AlphaBeta(a, b) for a, b in ((1, 0), (0, 1), (1, 1), (0, 0), (1, -1), (-0.5, 2), (2, -0.5), (0.3, -0.7), (1.5, 1e-9))],
    Hoelder(1.3, 2),
    Hoelder(2, 2),
    Hoelder(3, 0.4),
    HoelderPseudo(2),
    HoelderPseudo(5),
    *[Bregman(phi) for phi in (NegativeEntropy(), ItakuraSaito(), FermiDirac())],
    Bregman(ElementwiseGenerator(fourth, -1, 2)),
    Bregman(entropy),
    Bregman(ItakuraSaito()).reversed(),
]
# At equality these are zero only in the sense of their own limits: orders 0 and inf see the support and the largest ratio.
BLIND = {(Renyi(0), "separates"), (Tsallis(0), "separates"), (Renyi(0), "huge_logits"), (Tsallis(0), "huge_logits")}
CASES = [DivergenceCase(D) for D in [cls() for cls in registered(Divergence)] + OTHERS]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case.D))
def test_keeps_its_promise(case, check):
    if (case.D, check.__name__) in BLIND:
        pytest.skip("sees the support only")
    check(case)


def test_a_divergence_that_breaks_its_word_is_told_which():
    class Wrong(type(JensenShannon())):
        def reversed(self):
            return KL()

    with pytest.raises(AssertionError, match=r"fails \d+ of \d+ checks:\n.*reversed_exchanges"):
        check_divergence(Wrong())
    with pytest.raises(TypeError, match="derived from Divergence"):
        check_divergence("kl")  # type: ignore[arg-type]
