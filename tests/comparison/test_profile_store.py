"""The file of a profile: what goes in comes out, and whatever is damaged is refused in a sentence, never run."""

from __future__ import annotations

import json
import pickle
import sys
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discrepancy import compare
from discrepancy.comparison.errors import DataError
from discrepancy.comparison.profile import Profile, is_profile, load_profile, profile
from discrepancy.comparison.profile.store import to_bytes


@pytest.fixture(scope="module")
def made() -> Profile:
    rng = np.random.default_rng(0)
    n = 3_000
    value = rng.normal(size=n)
    value[:5] = np.nan
    return profile(
        {
            "value": value,
            "city": rng.choice(["Zürich", "Oslo", 'a "quoted" one'], size=n),
            "flag": rng.random(n) < 0.4,
            "day": [f"2024-03-{d:02d}" for d in rng.integers(1, 29, n)],
            "text": [" ".join(rng.choice(["red", "green", "blue"], k)) for k in rng.integers(5, 15, n)],
        },
        name="made",
    )


@pytest.fixture(scope="module")
def file(made: Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("profiles") / "made.profile"
    made.save(path)
    return path


def test_round_trip(made: Profile, file: Path) -> None:
    back = load_profile(file)
    assert (back.name, back.rows, back.seed, back.parts, back.left_out, back.notes) == (
        made.name, made.rows, made.seed, made.parts, made.left_out, made.notes,
    )  # fmt: skip
    for one, two in zip(made.columns, back.columns, strict=True):
        for field in fields(one):
            if field.name != "counts":
                assert getattr(one, field.name) == getattr(two, field.name), field.name
        for field in fields(one.counts):
            a, b = getattr(one.counts, field.name), getattr(two.counts, field.name)
            assert np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b, field.name
    assert made.joint is not None
    assert back.joint is not None
    assert made.joint.map.identity == back.joint.map.identity
    assert np.array_equal(made.joint.sums, back.joint.sums)
    assert np.array_equal(made.joint.sizes, back.joint.sizes)
    assert to_bytes(back) == file.read_bytes()
    assert file.stat().st_size < 3_000_000


def test_no_row_is_in_the_file(made: Profile, file: Path) -> None:
    data = file.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert {v["dtype"] for k, v in header.items() if k != "__metadata__"} <= {"F32", "F64", "U8"}
    assert b"red green" not in data
    assert len(made.column("value").counts.knots) < 2_994 + 1  # type: ignore[union-attr]


def test_what_is_no_profile_is_refused(tmp_path: Path, file: Path) -> None:
    data = file.read_bytes()
    head = int.from_bytes(data[:8], "little")
    later = data[8 : 8 + head].replace(b'version\\": 1', b'version\\": 9')
    foreign = data[8 : 8 + head].replace(b"discrepancy profile", b"something elsewhere")
    for name, content, words in (
        ("csv.profile", b"a,b\n1,2\n", "is not a profile"),
        ("empty.profile", b"", "is not a profile"),
        ("pickle.profile", pickle.dumps({"a": 1}), "is not a profile"),
        ("later.profile", data[:8] + later + data[8 + head :], "of version 9"),
        ("foreign.profile", data[:8] + foreign + data[8 + head :], "is not a profile"),
        ("header.profile", data[:100], "cut off or damaged"),
        ("half.profile", data[: len(data) // 2], "cut off or damaged"),
        ("last.profile", data[:-1], "cut off or damaged"),
        ("longer.profile", data + b"x", "cut off or damaged"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DataError, match=words):
            load_profile(path)
    with pytest.raises(DataError, match="no such file"):
        load_profile(tmp_path / "nowhere.profile")


def test_numbers_that_contradict_each_other_are_refused(tmp_path: Path, file: Path) -> None:
    data = file.read_bytes()
    head = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + head])
    content = json.loads(header["__metadata__"]["discrepancy"])
    content["rows"] += 1
    header["__metadata__"]["discrepancy"] = json.dumps(content)
    text = json.dumps(header).encode()
    path = tmp_path / "wrong.profile"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + head :])
    with pytest.raises(DataError, match="damaged"):
        load_profile(path)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_damage_is_never_a_traceback(file: Path, data: st.DataObject) -> None:
    content = bytearray(file.read_bytes())
    head = 8 + int.from_bytes(content[:8], "little")
    limit = data.draw(st.sampled_from([head, len(content)]))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, limit - 1))] = data.draw(st.integers(0, 255))
    path = file.with_name("damaged.profile")
    path.write_bytes(bytes(content))
    # Anything but a DataError fails the test; damage inside an array of numbers may also go unnoticed.
    with suppress(DataError):
        load_profile(path)


def test_which_sources_are_profiles(made: Profile, file: Path, tmp_path: Path) -> None:
    assert is_profile(made)
    assert is_profile(file)
    assert is_profile(str(file))
    renamed = tmp_path / "renamed.bin"
    renamed.write_bytes(file.read_bytes())
    assert is_profile(renamed)
    table = tmp_path / "t.csv"
    table.write_text("a\n1\n")
    assert not is_profile(table)
    assert not is_profile("-")
    assert not is_profile({"a": [1]})
    assert not is_profile(tmp_path)


def test_a_missing_package_is_named_with_the_install_line(monkeypatch: pytest.MonkeyPatch, file: Path, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "datasketches", None)
    with pytest.raises(DataError, match=r"pip install 'discrepancy\[scale\]'"):
        profile({"a": [1.0, 2.0]})
    # Streaming files above the budget needs none of it.
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "".join(f"{i / 7},{i % 5}\n" for i in range(5_000)))
    assert not compare(path, path, memory=1e-4).drift
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(DataError, match=r"pip install 'discrepancy\[scale\]'"):
        load_profile(file)
