"""Pairs of tables with known answers, and real before/after pairs, as Parquet files with a manifest.

    python benchmarks/drift/pairs.py FOLDER

null_N      two disjoint random samples of N rows of one census year: nothing changed
planted     the same, with four columns of the second changed by known amounts
real_*      two years of the same source
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from discrepancy.datasets import path, table

NULL_PAIRS, PLANTED_PAIRS = 100, 50


def census() -> pd.DataFrame:
    """Census employment of one year with a model's score, without identifiers and the labels that came later."""
    data = pd.read_parquet(path("employment-reference"))
    keep = [c for c in data.columns if c not in ("id", "year", "prediction", "employed")]
    data = data[keep]
    # As text: with a pandas categorical, levels that a sample does not contain would count as cells of a table elsewhere.
    return data.astype({c: str for c in data.columns if data[c].dtype == "category"})


def plant(current: pd.DataFrame, rng: np.random.Generator) -> tuple[pd.DataFrame, list[str]]:
    """Four changes of known size: a shift, a scale, a share of one level, and missing cells."""
    current = current.copy()
    age, score = current["AGEP"], current["predicted_probability"]
    current["AGEP"] = age + 0.15 * age.std()
    current["predicted_probability"] = score.mean() + 1.35 * (score - score.mean())
    current.loc[rng.random(len(current)) < 0.10, "SEX"] = current["SEX"].mode()[0]
    current["RELP"] = current["RELP"].mask(rng.random(len(current)) < 0.05)
    return current, ["AGEP", "predicted_probability", "SEX", "RELP"]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20261122)
    source = census()
    manifest = []

    def add(group: str, index: int, reference: pd.DataFrame, current: pd.DataFrame, planted: list[str] | None) -> None:
        files = [folder / f"{group}_{index}_{side}.parquet" for side in ("reference", "current")]
        for frame, file in zip((reference, current), files, strict=True):
            frame.to_parquet(file, index=False)
        manifest.append({"group": group, "reference": files[0].name, "current": files[1].name, "planted": planted})

    for n in (300, 2400):
        for i in range(NULL_PAIRS):
            rows = rng.permutation(len(source))[: 2 * n]
            add(f"null_{n}", i, source.iloc[rows[:n]], source.iloc[rows[n:]], [])
    for i in range(PLANTED_PAIRS):
        rows = rng.permutation(len(source))[:4800]
        current, planted = plant(source.iloc[rows[2400:]], rng)
        add("planted", i, source.iloc[rows[:2400]], current, planted)

    later = pd.read_parquet(path("employment-analysis"))[list(source.columns)]
    later = later.astype({c: source[c].dtype for c in source.columns})
    add("real_employment", 0, source, later, None)
    weather = pd.DataFrame(table("seattle-weather"))
    numbers = ["precipitation", "temp_max", "temp_min", "wind"]
    weather[numbers] = weather[numbers].astype(float)
    year = weather.pop("date").str[:4]
    add("real_weather", 0, weather[year == "2012"], weather[year == "2015"], None)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
