"""Nearest-neighbour estimates beside their peers' plain formulas: equal values, processor time.

python benchmarks/bench_estimation.py [--quick] [--only KSG|KL]

All contenders compute the same formula with the same k on the same rows, one thread each: KSG variant 1 in the maximum norm (of
d/2 + d/2 Gaussian columns), and the classical Kullback-Leibler estimate (of two Gaussian samples in d dimensions, a shift of 0.3
apart; ours in coordinates of unit covariance). "formula" is the textbook code on SciPy's k-d tree, as NPEET has it; scikit-learn
takes one pair of columns; infomeasure is run where it is installed. --quick keeps n = 10,000 in two dimensions.
Writes results/estimation.json and results/estimation.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import KDTree
from scipy.special import digamma

from discrepancy import KL, estimate, mutual_information
from discrepancy.estimation import KSG, NearestNeighbors

_K = 3
_RESULTS = Path(__file__).parent / "results"


def _information(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    r = np.random.default_rng(n + d)
    x = r.normal(size=(n, d // 2))
    return x, 0.6 * x + 0.8 * r.normal(size=x.shape)


def _two_samples(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    r = np.random.default_rng(n + d)
    return r.normal(size=(n, d)), 0.3 + r.normal(size=(n, d))


def _ours(x: np.ndarray, y: np.ndarray) -> float:
    method = KSG(k=_K, margins=None, extrapolation=None)
    return float(mutual_information(x, y, method))


def _formula(x: np.ndarray, y: np.ndarray) -> float:
    joint = np.hstack([x, y])
    radius = np.nextafter(KDTree(joint).query(joint, k=_K + 1, p=np.inf)[0][:, -1], 0)
    counts = [KDTree(s).query_ball_point(s, radius, p=np.inf, return_length=True) for s in (x, y)]
    return float(digamma(_K) + digamma(len(x)) - np.mean(digamma(counts[0]) + digamma(counts[1])))


def _scikit_learn(x: np.ndarray, y: np.ndarray) -> float:
    from sklearn.feature_selection import mutual_info_regression

    # Scales both columns and adds noise of 1e-10 to y: its value is that of scaled rows.
    return float(mutual_info_regression(x, y[:, 0], n_neighbors=_K, random_state=0)[0])


def _infomeasure(x: np.ndarray, y: np.ndarray) -> float:
    import infomeasure

    return float(infomeasure.mutual_information(x, y, approach="ksg", k=_K, noise_level=0))


def _divergence(x: np.ndarray, y: np.ndarray) -> float:
    return float(estimate(x, y, KL(), method=NearestNeighbors(k=_K, reference=None)))


def _divergence_formula(x: np.ndarray, y: np.ndarray) -> float:
    own, other = KDTree(x).query(x, k=_K + 1)[0][:, -1], KDTree(y).query(x, k=[_K])[0][:, 0]
    return float(x.shape[1] * np.mean(np.log(other / own)) + digamma(len(y) + 1) - digamma(len(x)))


def _divergence_infomeasure(x: np.ndarray, y: np.ndarray) -> float:
    import infomeasure

    return float(infomeasure.kld(x, y, approach="metric", k=_K, minkowski_p=2, noise_level=0))


def _measure(name: str, run: Callable[[], float], repeats: int) -> dict[str, float | str]:
    run()  # compiles and loads
    seconds, value = math.inf, math.nan
    for _ in range(repeats):
        start = time.process_time()
        value = run()
        seconds = min(seconds, time.process_time() - start)
    return {"contender": name, "value": value, "seconds": seconds}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=("KSG", "KL"), help="measure one estimate and keep the other's rows")
    options = parser.parse_args()
    torch.set_num_threads(1)
    file = _RESULTS / "estimation.json"
    rows = [r for r in json.loads(file.read_text(encoding="utf-8")) if r["estimate"] != options.only] if options.only else []
    for n, d in ((10_000, 2),) if options.quick else ((10_000, 2), (10_000, 10), (100_000, 2), (100_000, 10)):
        contenders = {"ours": _ours, "formula on SciPy": _formula}
        divergence = {"ours, with an error": _divergence, "formula on SciPy": _divergence_formula}
        if d == 2 and importlib.util.find_spec("sklearn"):
            contenders["scikit-learn"] = _scikit_learn
        if importlib.util.find_spec("infomeasure"):
            contenders["infomeasure"] = _infomeasure
            divergence["infomeasure"] = _divergence_infomeasure
        for what, group, (x, y) in (("KSG", contenders, _information(n, d)), ("KL", divergence, _two_samples(n, d))):
            for name, run in group.items() if options.only in (None, what) else ():
                found = _measure(name, lambda: run(x, y), 1 if n * d >= 10**6 else 3)  # noqa: B023
                rows.append({"estimate": what, "n": n, "d": d} | found)
                print(rows[-1], flush=True)
    rows.sort(key=lambda r: (r["estimate"], r["n"], r["d"]))
    for row in rows:
        row["truth"] = -row["d"] / 4 * math.log(0.64) if row["estimate"] == "KSG" else 0.045 * row["d"]
        first = next(r for r in rows if all(r[key] == row[key] for key in ("estimate", "n", "d")))
        row["times ours"] = row["seconds"] / first["seconds"]
    file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    lines = ["Written by `make bench-estimation`: nearest neighbours, k = 3, one thread.\n"]
    lines += [
        "| estimate | n | d | contender | value | truth | processor seconds | times ours |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['estimate']} | {r['n']:,} | {r['d']} | {r['contender']} | {r['value']:.5f} | "
        f"{r['truth']:.5f} | {r['seconds']:.3g} | {r['times ours']:.2f} |"
        for r in rows
    ]
    (_RESULTS / "estimation.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
