"""Names: what the command line calls things, closed forms by pair of types, and references as data.

Built-in names are listed as text ("module:Class") so that listing them, or printing help, imports nothing heavy.
"""

from __future__ import annotations

import ast
import importlib
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

_BUILT_IN: dict[str, str] = {
    "mmd": "discrepancy.kernel_methods:MMD",
    "energy": "discrepancy.kernel_methods:EnergyDistance",
    "hsic": "discrepancy.kernel_methods:HSIC",
    "distance-covariance": "discrepancy.kernel_methods:DistanceCovariance",
    "cka": "discrepancy.kernel_methods:CKA",
    "kernel-cauchy-schwarz": "discrepancy.kernel_methods:KernelCauchySchwarz",
    "cauchy-schwarz-information": "discrepancy.kernel_methods:CauchySchwarzInformation",
    "optimal-transport": "discrepancy.transport:OptimalTransport",
    "wasserstein": "discrepancy.transport:Wasserstein",
    "sliced-wasserstein": "discrepancy.transport:SlicedWasserstein",
    "energy-sliced-wasserstein": "discrepancy.transport:EnergySlicedWasserstein",
    "max-sliced-wasserstein": "discrepancy.transport:MaxSlicedWasserstein",
    "von-mises-fisher-sliced": "discrepancy.transport:VonMisesFisherSliced",
    "gaussian-wasserstein": "discrepancy.transport:GaussianWasserstein",
    "partial-transport": "discrepancy.transport:PartialTransport",
    "partial-sinkhorn": "discrepancy.transport:PartialSinkhorn",
    "sobolev-distance": "discrepancy.transport:SobolevDistance",
    "orlicz-wasserstein": "discrepancy.transport:OrliczWasserstein",
    "sinkhorn": "discrepancy.transport:Sinkhorn",
    "sinkhorn-divergence": "discrepancy.transport:SinkhornDivergence",
    "low-rank-sinkhorn": "discrepancy.transport:LowRankSinkhorn",
    "unbalanced-sinkhorn": "discrepancy.transport:UnbalancedSinkhorn",
    "unbalanced-sinkhorn-divergence": "discrepancy.transport:UnbalancedSinkhornDivergence",
    "kl": "discrepancy.divergences:KL",
    "reverse-kl": "discrepancy.divergences:ReverseKL",
    "jeffreys": "discrepancy.divergences:Jeffreys",
    "jensen-shannon": "discrepancy.divergences:JensenShannon",
    "alpha": "discrepancy.divergences:Alpha",
    "squared-hellinger": "discrepancy.divergences:SquaredHellinger",
    "chi-squared": "discrepancy.divergences:ChiSquared",
    "neyman-chi-squared": "discrepancy.divergences:NeymanChiSquared",
    "le-cam": "discrepancy.divergences:LeCam",
    "total-variation": "discrepancy.divergences:TotalVariation",
    "skewed-jensen-shannon": "discrepancy.divergences:SkewedJensenShannon",
    "renyi": "discrepancy.divergences:Renyi",
    "tsallis": "discrepancy.divergences:Tsallis",
    "alpha-beta": "discrepancy.divergences:AlphaBeta",
    "cauchy-schwarz": "discrepancy.divergences:CauchySchwarz",
    "hoelder": "discrepancy.divergences:Hoelder",
    "hoelder-pseudo": "discrepancy.divergences:HoelderPseudo",
    "bregman": "discrepancy.divergences:Bregman",
}
_ADDED: dict[str, type] = {}


def register(name: str) -> Callable[[type], type]:
    """Class decorator: give a discrepancy or divergence of your own a name that the command line and the suite know."""
    if not name or any(c in name for c in ":, ="):
        raise ValueError(f"a registered name has no spaces, colons, commas or equals signs, got {name!r}")

    def add(cls: type) -> type:
        if name in _BUILT_IN or _ADDED.get(name, cls) is not cls:
            raise ValueError(f"the name {name!r} is taken by {lookup(name).__name__}")
        _ADDED[name] = cls
        return cls

    return add


def names() -> list[str]:
    """All registered names, sorted."""
    return sorted({*_BUILT_IN, *_ADDED})


def lookup(name: str) -> type:
    """The class registered under a name; ValueError lists the names there are."""
    if name in _ADDED:
        return _ADDED[name]
    if name not in _BUILT_IN:
        raise ValueError(f"unknown name {name!r}; known are {', '.join(names())}")
    module, _, attribute = _BUILT_IN[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def registered(kind: type) -> list[type]:
    """All registered classes of one kind (`Discrepancy`, `Divergence`)."""
    return [cls for cls in map(lookup, names()) if issubclass(cls, kind)]


def parse(text: str) -> Any:
    """The object that a command line names: "mmd", "sinkhorn-divergence:epsilon=0.05,max_iterations=100"."""
    name, _, options = text.partition(":")
    cls = lookup(name.strip())
    arguments: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in options.split(","))):
        key, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"options read name=value, got {item!r} in {text!r}")
        try:
            arguments[key.strip()] = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            raise ValueError(
                f"the value of {key.strip()!r} must be a number, True, False or a quoted text, got {value.strip()!r}"
            ) from None
    try:
        return cls(**arguments)
    except TypeError:
        known = ", ".join(getattr(cls, "__dataclass_fields__", {})) or "none"
        raise ValueError(f"{name} takes the options {known}, got {', '.join(arguments)}") from None


class PairDispatch:
    """Formulas by an ordered pair of types, the most specific match first; other packages can add pairs."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._formulas: dict[tuple[type, type], Callable[..., Any]] = {}

    def register(self, left: type, right: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorator: this formula serves (left, right) and their subclasses."""

        def add(formula: Callable[..., Any]) -> Callable[..., Any]:
            self._formulas[left, right] = formula
            return formula

        return add

    def find(self, left: type, right: type) -> Callable[..., Any] | None:
        """The most specific formula for two types, or None."""
        return next(self.candidates(left, right), None)

    def candidates(self, left: type, right: type) -> Iterator[Callable[..., Any]]:
        """The formulas that serve two types, the most specific first."""
        for p in left.__mro__:
            for q in right.__mro__:
                if (p, q) in self._formulas:
                    yield self._formulas[p, q]


@dataclass(frozen=True)
class Reference:
    """A citation as data."""

    key: str
    authors: str
    title: str
    year: int
    venue: str = ""
    arxiv: str = ""
    doi: str = ""

    def bibtex(self) -> str:
        """The BibTeX entry."""
        rows = {"author": self.authors, "title": f"{{{self.title}}}", "year": str(self.year), "journal": self.venue}
        if self.arxiv:
            rows |= {"eprint": self.arxiv, "archiveprefix": "arXiv"}
        if self.doi:
            rows["doi"] = self.doi
        body = ",\n".join(f"  {k:<13} = {{{v}}}" for k, v in rows.items() if v)
        return f"@article{{{self.key},\n{body}\n}}"

    def __str__(self) -> str:
        where = self.venue or (f"arXiv:{self.arxiv}" if self.arxiv else "")
        return f"{self.authors.replace(' and ', ', ')} ({self.year}). {self.title}." + (f" {where}." if where else "")


@cache
def references() -> dict[str, Reference]:
    """The bibliography, by key: the works that classes cite, and the 90 papers under their slugs."""
    package = resources.files("discrepancy")
    works = tomllib.loads(package.joinpath("_references.toml").read_text(encoding="utf-8"))
    papers = tomllib.loads(package.joinpath("recipes", "papers.toml").read_text(encoding="utf-8"))
    shared = {slug: {k: record[k] for k in ("authors", "title", "year", "arxiv")} for slug, record in papers.items()}
    return {key: Reference(key=key, **entry) for key, entry in (shared | works).items()}


def cite(*subjects: Any) -> str:
    """The BibTeX entries to cite when using these subjects, each once.

    A subject is an object or class of this library (its `references`), a registered name ("mmd"), the slug of a paper
    ("monge-gap"), or a key of the bibliography. Raises ValueError for a name that is none of these, TypeError for a
    subject that carries no references.
    """
    keys: list[str] = []
    for subject in subjects:
        if isinstance(subject, str):
            if subject in references():
                keys.append(subject)
                continue
            if subject not in names():
                raise ValueError(f"{subject!r} is no paper, no registered name and no key of the bibliography")
            subject = lookup(subject)
        found = getattr(subject, "references", None)
        if not found:
            raise TypeError(f"{subject!r} carries no references")
        keys.extend(found)
    return "\n\n".join(references()[key].bibtex() for key in dict.fromkeys(keys)) + "\n"
