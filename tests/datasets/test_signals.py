"""MNIST-1D is the published set, drawn without touching the global generators."""

import random

import numpy as np
import pytest

from discrepancy.datasets import mnist1d


def test_the_default_set_has_the_published_sizes_and_scale():
    signals = mnist1d()
    assert signals.train.shape == (4000, 40)
    assert signals.test.shape == (1000, 40)
    assert signals.train.dtype == np.float32
    both = np.concatenate([signals.train, signals.test]).astype(float)
    assert abs(both.mean()) < 1e-6
    assert abs(both.std() - 1) < 1e-6
    classes = np.concatenate([signals.train_classes, signals.test_classes])
    assert [(classes == k).sum() for k in range(10)] == [500] * 10


def test_generators_of_the_caller_are_left_alone():
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    expected = np.random.rand(), random.random()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    mnist1d(50, seed=5)
    assert (np.random.rand(), random.random()) == expected  # noqa: NPY002


def test_arrays_are_read_only_and_kept():
    first = mnist1d(50, seed=5)
    assert mnist1d(50, seed=5) is first
    with pytest.raises(ValueError, match="read-only"):
        first.train[0, 0] = 1.0


@pytest.mark.parametrize("count", [0, 55, 2.5])
def test_odd_counts_are_refused(count):
    with pytest.raises(ValueError, match="count must be"):
        mnist1d(count)
