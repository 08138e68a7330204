"""Who estimates: ours, the benchmark's own estimators and other libraries' nearest neighbours, all with their defaults."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

Answer = dict[str, float | None]


@dataclass(frozen=True)
class Contender:
    """An estimator: (x, y, seed) to value and interval; `whose` library it is, and whether it trains a network (`trained`)."""

    name: str
    whose: str
    run: Callable[[np.ndarray, np.ndarray, int], Answer]
    trained: bool = False


def _ours(make: Callable[[], Any]) -> Callable[[np.ndarray, np.ndarray, int], Answer]:
    def run(x: np.ndarray, y: np.ndarray, seed: int) -> Answer:
        import discrepancy as dc

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = dc.mutual_information(x, y, make(), generator=torch.Generator().manual_seed(seed))
        ends = {k: None if v is None else float(v) for k, v in (("low", found.low), ("high", found.high))}
        return {"value": float(found)} | ends

    return run


def _theirs(make: Callable[[int], Any]) -> Callable[[np.ndarray, np.ndarray, int], Answer]:
    def run(x: np.ndarray, y: np.ndarray, seed: int) -> Answer:
        return {"value": float(make(seed).estimate(x, y)), "low": None, "high": None}

    return run


def _package(name: str, **options: Any) -> Callable[[int], Any]:
    def make(seed: int) -> Any:
        import bmi.estimators

        seeded = {"seed": seed} if "verbose" in options else {}
        return getattr(bmi.estimators, name)(**options, **seeded)

    return make


def _scikit_learn(x: np.ndarray, y: np.ndarray, seed: int) -> Answer:
    from sklearn.feature_selection import mutual_info_regression

    if x.shape[1] > 1 or y.shape[1] > 1:
        raise NotImplementedError("a pair of columns only")
    return {"value": float(mutual_info_regression(x, y[:, 0], random_state=seed)[0]), "low": None, "high": None}


def _infomeasure(x: np.ndarray, y: np.ndarray, seed: int) -> Answer:
    import infomeasure

    np.random.seed(seed)  # noqa: NPY002, its noise against ties comes from the global generator
    return {"value": float(infomeasure.mutual_information(x, y, approach="ksg")), "low": None, "high": None}


def _neighbors() -> Any:
    return None


def _first_variant() -> Any:
    from discrepancy.estimation import KSG

    return KSG(variant=1)


def _second_variant() -> Any:
    from discrepancy.estimation import KSG

    return KSG(variant=2)


def _variational(name: str) -> Callable[[], Any]:
    def make() -> Any:
        import discrepancy.estimation.variational as variational

        return getattr(variational, name)()

    return make


def _minde() -> Any:
    from discrepancy.estimation import MINDE

    return MINDE()


CONTENDERS = (
    Contender("default", "discrepancy", _ours(_neighbors)),
    Contender("KSG 1", "discrepancy", _ours(_first_variant)),
    Contender("KSG 2", "discrepancy", _ours(_second_variant)),
    Contender("CCA", "benchmark-mi", _theirs(_package("CCAMutualInformationEstimator"))),
    Contender("KSG (bmi)", "benchmark-mi", _theirs(_package("KSGEnsembleFirstEstimator", neighborhoods=(10,)))),
    Contender("histogram", "benchmark-mi", _theirs(_package("HistogramEstimator"))),
    Contender("KDE", "benchmark-mi", _theirs(_package("KDEMutualInformationEstimator"))),
    Contender("scikit-learn", "scikit-learn", _scikit_learn),
    Contender("infomeasure", "infomeasure", _infomeasure),
    Contender("MINDE", "discrepancy", _ours(_minde), trained=True),
    *(
        Contender(name, "discrepancy", _ours(_variational(name)), trained=True)
        for name in ("DonskerVaradhan", "NWJ", "InfoNCE", "SMILE")
    ),
    *(
        Contender(f"{short} (bmi)", "benchmark-mi", _theirs(_package(name, verbose=False)), trained=True)
        for short, name in (
            ("MINE", "MINEEstimator"),
            ("InfoNCE", "InfoNCEEstimator"),
            ("NWJ", "NWJEstimator"),
            ("DV", "DonskerVaradhanEstimator"),
        )
    ),
)

__all__ = ["CONTENDERS", "Answer", "Contender"]
