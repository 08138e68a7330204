"""The scikit-learn door of an estimator that is a dataclass: its options by name."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Self


class Parameters:
    """Base of estimators whose dataclass fields are their options; `_check()` raises for options that make no sense.

    Options are kept as given, so that scikit-learn's `clone` and searches take these estimators; scikit-learn is not needed.
    """

    def __post_init__(self) -> None:
        """Check the options."""
        self._check()

    def _check(self) -> None:
        """Raise for options that make no sense."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The options by name, as scikit-learn asks for them."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.init}  # type: ignore[arg-type]

    def set_params(self, **options: Any) -> Self:
        """Change options by name; ValueError for a name that is none."""
        known = self.get_params()
        for name, value in options.items():
            if name not in known:
                raise ValueError(f"{type(self).__name__} has no option {name!r}; it has {', '.join(sorted(known))}")
            setattr(self, name, value)
        self._check()
        return self


__all__ = ["Parameters"]
