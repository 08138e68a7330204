"""What all transport maps with a scikit-learn door share: options by name, transform, and the checks at the door."""

from __future__ import annotations

from dataclasses import fields
from itertools import chain
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from discrepancy._results import NumericalError
from discrepancy._validate import SamplePair, sample, sample_pair


class MapEstimator:
    """Base of estimators that learn a map from a source X to a target Y; a subclass is a dataclass whose fields are its options.

    A subclass defines `fit(X, Y, ...)`, which sets `module_`, a `torch.nn.Module` from points (..., d) to points, and `_check()`,
    which raises for options that make no sense. Options are kept as they were given, so that scikit-learn's `clone`, `Pipeline`
    and searches take these estimators; scikit-learn itself is not needed.
    """

    module_: nn.Module

    def __post_init__(self) -> None:
        """Check the options."""
        self._check()

    def _check(self) -> None:
        """Raise for options that make no sense."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The options by name, as scikit-learn asks for them."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    def set_params(self, **options: Any) -> Self:
        """Change options by name; ValueError for a name that is none."""
        known = {f.name for f in fields(self)}  # type: ignore[arg-type]
        for name, value in options.items():
            if name not in known:
                raise ValueError(f"{type(self).__name__} has no option {name!r}; it has {', '.join(sorted(known)) or 'none'}")
            setattr(self, name, value)
        self._check()
        return self

    def fit(self, X: Any, Y: Any) -> Self:
        """Learn the map from source X (n, d) to target Y (m, d)."""
        raise NotImplementedError

    def transform(self, X: Any) -> Any:
        """The map at X (n, d): a tensor for a tensor, else an array. Raises AttributeError before `fit`."""
        self._need_fit()
        return self._moved(self.module_, X)

    def fit_transform(self, X: Any, Y: Any, **options: Any) -> Any:
        """fit(X, Y), then transform(X)."""
        return self.fit(X, Y, **options).transform(X)

    def _need_fit(self) -> None:
        if not hasattr(self, "module_"):
            raise AttributeError(f"this {type(self).__name__} is not fitted: call fit(X, Y) first")

    @staticmethod
    def _moved(module: nn.Module, X: Any) -> Any:
        """The module at X, computed in its own dtype, without gradients; NumericalError where it is not finite."""
        points = sample(X, "X")
        own = next(chain(module.parameters(), module.buffers()), points)
        with torch.no_grad():
            image = module(points.to(own.dtype))
        if not bool(torch.isfinite(image).all()):
            raise NumericalError("the map returned values that are not finite")
        image = image.to(points.dtype)
        return image if isinstance(X, Tensor) else np.asarray(image.cpu())

    @staticmethod
    def _one_pair(X: Any, Y: Any, a: Any = None, b: Any = None) -> SamplePair:
        """Source and target, validated; ValueError for a batch of pairs."""
        pair = sample_pair(X, Y, a, b)
        if pair.batch:
            raise ValueError(f"fit takes one pair of samples of shape (n, d), got a batch of shape {tuple(pair.batch)}")
        return SamplePair(
            pair.x.detach(), pair.y.detach(), pair.a.detach(), pair.b.detach(), uniform_a=pair.uniform_a, uniform_b=pair.uniform_b
        )

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled and copied: everything but the solved problem, `result_`, which holds functions."""
        return {name: value for name, value in self.__dict__.items() if name != "result_"}

    def __sklearn_is_fitted__(self) -> bool:
        """Whether `fit` was called, as scikit-learn asks."""
        return hasattr(self, "module_")

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn wants to know of an estimator: a transformer that is fitted with a target."""
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=True),
            transformer_tags=TransformerTags(),
            input_tags=InputTags(),
        )


__all__ = ["MapEstimator"]
