"""Two tables side by side: common columns, options that name columns, weights, clusters, text, duplicates, samples."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discrepancy.comparison.derived import text_statistics
from discrepancy.comparison.duplicates import duplicate_note, row_fingerprints
from discrepancy.comparison.errors import DataError, OptionError
from discrepancy.comparison.model import Kind, Options
from discrepancy.comparison.pairing import display_names, read_pair
from discrepancy.comparison.reading import iterate, read_table
from discrepancy.comparison.sampling import reservoir

RNG = np.random.default_rng(0)
A = {"x": RNG.normal(size=60), "g": np.array(["a", "b", "c"] * 20), "k": np.arange(60) % 7, "w": np.arange(60) % 11 + 1.0}
B = {"x": RNG.normal(size=50), "g": np.array(["a", "d"] * 25), "k": np.arange(50) % 5, "w": np.arange(50) % 11 + 1.0}


def test_common_columns_in_the_order_of_the_reference() -> None:
    pair = read_pair({**A, "only_a": A["x"]}, {"new": B["x"], **dict(reversed(B.items()))}, Options())
    assert [c.name for c in pair.columns] == ["x", "g", "k", "w"]
    assert pair.left_out == {"only_a": "only in the reference", "new": "only in the current table"}
    assert "1 column is in the reference only and could not be compared." in pair.notes
    assert (pair.rows_reference, pair.rows_current) == (60, 50)
    assert pair.column("g").levels == ("a", "b", "c", "d")


def test_no_common_column() -> None:
    with pytest.raises(DataError, match=r"no column in common \('x' against 'X'\); some differ in capitals only \('x'\)"):
        read_pair({"x": A["x"]}, {"X": B["x"]}, Options())
    with pytest.raises(DataError, match=r"no column in common.*: rename the columns"):
        read_pair({"x": A["x"]}, {"y": B["x"]}, Options())


def test_tables_without_a_header_are_told_to_have_one(tmp_path: Path) -> None:
    for name, first in (("a.csv", "1.5,2.5"), ("b.csv", "3.5,4.5")):
        (tmp_path / name).write_text(first + "\n5,6\n7,8\n")
    with pytest.raises(DataError, match="give both a header line"):
        read_pair(tmp_path / "a.csv", tmp_path / "b.csv", Options())


def test_chosen_columns() -> None:
    pair = read_pair(A, B, Options(columns=("k", "x")))
    assert [c.name for c in pair.columns] == ["x", "k"]
    with pytest.raises(DataError, match=r"no column 'xx'"):
        read_pair(A, B, Options(columns=("xx",)))
    with pytest.raises(DataError, match="no column 'extra'"):
        read_pair({**A, "extra": A["x"]}, B, Options(columns=("extra",)))


@pytest.mark.parametrize("option", ["kinds", "deltas", "margins"])
def test_options_that_name_columns_must_name_some(option: str) -> None:
    value = "code" if option == "kinds" else 0.1
    with pytest.raises(OptionError, match=f"{option} names the column 'xgk', which is in neither table"):
        read_pair(A, B, Options(**{option: {"xgk": value}}))
    read_pair({**A, "only": A["x"]}, B, Options(**{option: {"only": "numeric" if option == "kinds" else 0.1}}))


def test_weights_and_clusters_leave_the_comparison() -> None:
    pair = read_pair(A, B, Options(weights="w", cluster="k"))
    assert [c.name for c in pair.columns] == ["x", "g"]
    assert pair.weights_reference is not None
    assert pair.weights_reference.tolist() == A["w"].tolist()
    assert pair.weights_current is not None
    assert pair.left_out == {"w": "row weights", "k": "clusters"}
    assert pair.cluster_reference is not None
    assert pair.cluster_current is not None
    assert pair.cluster_reference[:8].tolist() == [0, 1, 2, 3, 4, 5, 6, 0]
    assert pair.cluster_current[:6].tolist() == [0, 1, 2, 3, 4, 0], "one key is one cluster in both"
    one = read_pair(A, {k: v for k, v in B.items() if k != "w"}, Options(weights="w"))
    assert one.weights_current is None
    assert any("weigh the same" in note for note in one.notes)
    chosen = read_pair(A, {k: v for k, v in B.items() if k != "w"}, Options(weights="w", columns=("x",)))
    assert chosen.weights_reference is not None


@pytest.mark.parametrize(
    ("weights", "says", "kind"),
    [
        ([1.0, -2.0] + [1.0] * 58, r"1 weight\(s\) in column 'w' are negative, first in row 2 \(-2\)", DataError),
        ([1.0, np.nan] + [1.0] * 58, r"missing, first in row 2: every row needs a weight", DataError),
        ([np.inf] + [1.0] * 59, r"infinite, first in row 1", DataError),
        (["heavy"] * 60, "holds cells that are not numbers", DataError),
        ([0.0] * 60, "are zero: some row must count", DataError),
    ],
)
def test_bad_weights(weights: list, says: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=says):
        read_pair({**A, "w": weights}, B, Options(weights="w"))


def test_weights_that_count_rows_are_whole() -> None:
    with pytest.raises(DataError, match=r"not whole, first in row 1 \(0\.5\): frequency weights count rows"):
        read_pair({**A, "w": A["w"] - 0.5}, B, Options(weights="w", frequency_weights=True))
    with pytest.raises(OptionError, match="the weights column 'ww' is in neither table"):
        read_pair(A, B, Options(weights="ww"))


def test_bad_clusters() -> None:
    with pytest.raises(DataError, match="row 2 has no value in the cluster column 'g'"):
        read_pair({**A, "g": ["a", None] * 30}, B, Options(cluster="g"))
    with pytest.raises(DataError, match="has no column 'key'"):
        read_pair({**A, "key": A["k"]}, B, Options(cluster="key"))


def test_groups_are_levels() -> None:
    assert read_pair(A, B, Options(by="k")).column("k").kind is Kind.CODE
    assert read_pair(A, B, Options(by="k")).column("k").levels == tuple("0123456")
    with pytest.raises(OptionError, match="'x', which is numeric and makes no groups"):
        read_pair(A, B, Options(by="x"))
    with pytest.raises(DataError, match="--by names the column 'nope'"):
        read_pair(A, B, Options(by="nope"))


def test_names() -> None:
    assert display_names("jan/a.csv", "feb/a.csv") == ("jan/a.csv", "feb/a.csv")
    assert display_names("jan/a.csv", "b.csv") == ("a.csv", "b.csv")
    assert display_names("a.csv", "a.csv") == ("reference", "current")
    assert display_names(A, B) == ("reference", "current")
    assert read_pair(A, B, Options(), ("one", "two")).names == ("one", "two")


def test_text_statistics_are_counted_right() -> None:
    texts = ["Ab1 !", "", "éÉ漢 ٣", "x" * 10]
    got = text_statistics(texts, np.array([False, True, False, False]))
    assert got["length"].values.tolist()[0] == 5
    assert np.isnan(got["length"].values[1])
    assert got["length"].missing.tolist() == [False, True, False, False]
    np.testing.assert_allclose(got["letters"].values[[0, 2, 3]], [2 / 5, 3 / 5, 1])
    np.testing.assert_allclose(got["capitals"].values[[0, 2]], [1 / 5, 1 / 5])
    np.testing.assert_allclose(got["digits"].values[[0, 2]], [1 / 5, 1 / 5])
    np.testing.assert_allclose(got["spaces"].values[[0, 2]], [1 / 5, 1 / 5])
    np.testing.assert_allclose(got["signs"].values[[0, 2]], [1 / 5, 0])
    np.testing.assert_allclose(got["non-ASCII"].values[[0, 2]], [0, 4 / 5])


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20), min_size=1, max_size=12))
@settings(deadline=None)
def test_text_statistics_as_python_counts(texts: list[str]) -> None:
    got = text_statistics(texts, np.zeros(len(texts), dtype=bool))
    for i, text in enumerate(texts):
        assert got["length"].values[i] == len(text)
        assert got["spaces"].values[i] == sum(c.isspace() for c in text) / len(text)
        assert got["non-ASCII"].values[i] == sum(ord(c) > 127 for c in text) / len(text)
        assert got["digits"].values[i] == sum(c.isdigit() and not c.isspace() for c in text) / len(text)


def test_text_columns_are_replaced_by_what_is_derived() -> None:
    one = [f"The {i}th of many long and different remarks, made on day {i * 7}" for i in range(60)]
    pair = read_pair({**A, "remark": one}, {**B, "remark": [t.upper() + "!" for t in one[:50]]}, Options())
    derived = [c for c in pair.columns if c.source == "remark"]
    assert next(c.name for c in derived) == "remark: length"
    assert {c.name.split(": ")[1] for c in derived} == {"length", "letters", "capitals", "digits", "spaces", "signs"}
    assert derived[0].unit == "characters"
    assert "remark" not in [c.name for c in pair.columns]
    capitals = pair.column("remark: capitals")
    assert capitals.current.values.min() > 0.5 > capitals.reference.values.max()
    missing = read_pair({**A, "remark": [None, *one[1:]]}, {**B, "remark": one[:50]}, Options())
    assert missing.column("remark: letters").reference.missing.tolist()[0]


def test_an_embedding_is_local_or_refused(tmp_path: Path) -> None:
    one = [f"The {i}th of many long and different remarks, made on day {i * 7}" for i in range(60)]
    with pytest.raises(OptionError, match="must name a local model folder"):
        read_pair({"t": one}, {"t": one}, Options(embedding="some/name-on-a-hub"))
    (tmp_path / "config.json").write_text("{}")
    try:
        import transformers  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(OptionError, match="needs the package transformers: pip install transformers"):
            read_pair({"t": one}, {"t": one}, Options(embedding=str(tmp_path)))
    else:
        with pytest.raises(OptionError, match="holds no model"):
            read_pair({"t": one}, {"t": one}, Options(embedding=str(tmp_path)))
    pair = read_pair(A, B, Options(embedding="unused"))
    assert "No text column was found for the embedding." in pair.notes


def test_leading_coordinates_of_an_embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted truth: texts embedded along one axis, the current table moved by 3 on it."""
    from discrepancy.comparison import embedding

    def load(folder: str):
        def embed(texts):
            along = np.array([float(t.split()[-1]) + 3 * t.startswith("New") for t in texts])
            return np.outer(along, [0.6, 0.8, 0.0]) + np.random.default_rng(len(texts)).normal(0, 1e-3, (len(texts), 3))

        return embed

    monkeypatch.setattr(embedding, "load_embedding", load)
    values = np.random.default_rng(1).normal(size=120)
    one = [f"Old words that are many enough to be a sentence {v}" for v in values[:60]]
    two = [f"New words that are many enough to be a sentence {v}" for v in values[:60]]
    pair = read_pair({"t": one}, {"t": two}, Options(embedding="any"))
    first = pair.column("t: embedding 1")
    assert first.source == "t"
    np.testing.assert_allclose((first.current.values - first.reference.values), 3, atol=0.02)
    assert np.abs(pair.column("t: embedding 2").reference.values).max() < 0.02


def test_duplicates_are_said_where_chance_does_not_explain_them() -> None:
    x, y = RNG.normal(size=200), RNG.normal(size=200)
    doubled = {"x": np.concatenate([x, x[:30]]), "y": np.concatenate([y, y[:30]])}
    table = read_table(doubled)
    assert len(np.unique(row_fingerprints(table))) == 200
    note = duplicate_note(table, "reference")
    assert note is not None
    assert note.startswith("13% of the rows of the reference table")
    assert duplicate_note(read_table({"x": np.concatenate([x, x[:5]]), "y": np.concatenate([y, y[:5]])}), "reference") is None
    coarse = {"a": RNG.integers(0, 2, 500), "b": np.array(["u", "v", "w"])[RNG.integers(0, 3, 500)]}
    assert duplicate_note(read_table(coarse), "reference") is None, "six kinds of rows repeat innocently"
    assert any("repeat an earlier row" in n for n in read_pair(doubled, doubled, Options()).notes)


def test_fingerprints_of_rows_know_the_column() -> None:
    swapped = row_fingerprints(read_table({"x": [1.5, 2.5], "y": [2.5, 1.5]}))
    assert swapped[0] != swapped[1]


def test_a_sample_is_uniform_and_independent_of_chunks(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("i,s\n" + "".join(f"{i}.5,é{i % 3}\n" for i in range(997)))
    samples = [reservoir(iterate(path, rows=rows), 100, 3, "reference") for rows in (1_000, 97, 10)]
    for sample, rows in samples:
        assert rows == 997
        assert sample.rows == 100
        assert sample.columns["i"].texts() == samples[0][0].columns["i"].texts()
    order = [float(v) for v in samples[0][0].columns["i"].texts()]
    assert order == sorted(order), "rows keep their order"
    other, _ = reservoir(iterate(path), 100, 4, "reference")
    assert other.columns["i"].texts() != samples[0][0].columns["i"].texts()
    side, _ = reservoir(iterate(path), 100, 3, "current")
    assert side.columns["i"].texts() != samples[0][0].columns["i"].texts()
    whole, rows = reservoir(iterate(path), 2_000, 3, "reference")
    assert (whole.rows, rows) == (997, 997)


def test_every_row_is_as_likely_to_be_drawn() -> None:
    table = {"i": np.arange(40) + 0.5}
    drawn = np.zeros(40)
    for seed in range(600):
        sample, _ = reservoir(iterate(table, rows=7), 10, seed, "reference")
        drawn[(sample.columns["i"].values - 0.5).astype(int)] += 1
    # Each count is binomial(600, 1/4): mean 150, deviation 10.6; the largest of 40 stays within 4.5 deviations.
    assert drawn.sum() == 6_000
    assert np.abs(drawn - 150).max() < 4.5 * np.sqrt(600 * 0.25 * 0.75)
    chi2 = ((drawn - 150) ** 2 / 150).sum()
    assert 12 < chi2 < 60


def test_one_row_and_reordered_columns() -> None:
    pair = read_pair({"x": [1.5], "s": ["a"]}, {"s": ["b"], "x": [2.5]}, Options())
    assert [c.name for c in pair.columns] == ["x", "s"]
    assert pair.column("s").levels == ("a", "b")


def test_formulas_and_html_are_only_text() -> None:
    cells = ["=1+1", "<script>alert(1)</script>", "@cmd", "-2+3"] * 10
    pair = read_pair({"=x": cells}, {"=x": cells}, Options())
    assert set(pair.column("=x").levels or ()) == set(cells)


def test_reading_imports_nothing_heavy() -> None:
    code = (
        "import sys; from discrepancy.comparison.pairing import read_pair; from discrepancy.comparison.model import Options;"
        "read_pair({'x': [1.5, 2]}, {'x': [2, 3.5]}, Options());"
        "print([m for m in ('torch', 'pandas', 'polars', 'pyarrow', 'narwhals', 'scipy', 'numba') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
