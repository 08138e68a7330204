"""Names, dispatch by type, and citations."""

import subprocess
import sys
from dataclasses import dataclass

import pytest

from discrepancy import _registry


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown name 'mdd'; known are .*mmd"):
        _registry.lookup("mdd")


@pytest.mark.parametrize("name", _registry.names())
def test_every_built_in_name_resolves_and_cites(name):
    cls = _registry.lookup(name)
    assert isinstance(cls, type)
    assert cls.references, f"{cls.__name__} carries no reference"
    assert "@article{" in _registry.cite(name)


def test_options_are_read_as_values():
    kernel = _registry.parse("mmd:biased=True")
    assert kernel.biased is True
    with pytest.raises(ValueError, match="takes the options"):
        _registry.parse("mmd:bias=True")
    with pytest.raises(ValueError, match="name=value"):
        _registry.parse("mmd:biased")


def test_a_name_is_given_once(monkeypatch):
    monkeypatch.setattr(_registry, "_ADDED", {})

    @_registry.register("mine")
    class Mine:
        pass

    assert _registry.lookup("mine") is Mine
    with pytest.raises(ValueError, match="is taken"):
        _registry.register("mine")(int)
    with pytest.raises(ValueError, match="no spaces"):
        _registry.register("two words")


def test_pair_dispatch_prefers_the_most_specific():
    dispatch = _registry.PairDispatch("test")

    class A: ...

    class B(A): ...

    dispatch.register(A, A)(lambda: "AA")
    dispatch.register(B, A)(lambda: "BA")
    assert dispatch.find(B, B)() == "BA"
    assert dispatch.find(A, B)() == "AA"
    assert dispatch.find(int, A) is None


def test_bibtex_has_every_field_and_each_work_once():
    text = _registry.cite("monge-gap", "monge-gap")
    assert text.count("@article{monge-gap") == 1
    assert "eprint        = {2302.04953}" in text
    with pytest.raises(ValueError, match="no paper"):
        _registry.cite("nonsense")

    @dataclass
    class Bare:
        x: int = 0

    with pytest.raises(TypeError, match="carries no references"):
        _registry.cite(Bare())


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, discrepancy; dir(discrepancy);"
        "heavy = {'torch', 'numpy', 'scipy', 'numba', 'jaxtyping', 'narwhals', 'jinja2', 'rich'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_resolves():
    import discrepancy

    for name in discrepancy.__all__:
        assert getattr(discrepancy, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        discrepancy.Nonsense  # noqa: B018
