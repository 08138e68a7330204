"""Results print as one line, become JSON, and never carry NaN into it."""

import json
import math
import pickle
import warnings

import pytest
import torch

from discrepancy import ConvergenceWarning, Estimate, Outcome, TestResult, TransportResult


def test_one_line_and_plain_json():
    e = Estimate(torch.tensor(0.25, requires_grad=True), 0.1, math.nan, math.inf, 0.95, "known")
    assert repr(e).startswith("Estimate(value=0.25, standard_error=0.1")
    assert "\n" not in repr(e)
    record = e.to_dict()
    assert record["low"] is None
    assert record["high"] is None
    json.dumps(record, allow_nan=False)
    assert float(e) == 0.25


def test_html_escapes():
    assert "<script>" not in TestResult(0.0, 1.0, 1.0, 1.0, "<script>")._repr_html_()


def test_results_are_frozen_and_picklable():
    t = TestResult(1.0, 0.5, 0.4, 0.6, "m")
    assert pickle.loads(pickle.dumps(t)) == t
    with pytest.raises(AttributeError):
        t.p_value = 0.0


def test_outcome_warns_once_unless_it_is_fine():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Outcome.CONVERGED.warn("solver")
    with pytest.warns(ConvergenceWarning, match="solver: iteration limit"):
        Outcome.ITERATION_LIMIT.warn("solver")


def test_a_result_without_a_plan_says_so_and_one_with_a_plan_applies_it():
    bare = TransportResult(1.0, 1.0, None, None, 0.0, 0.0, 0, 0.0, Outcome.CLOSED_FORM)
    with pytest.raises(TypeError, match="carries no plan"):
        bare.plan()
    plan = torch.tensor([[0.5, 0.0], [0.0, 0.5]])
    full = TransportResult(1.0, 1.0, None, None, 0.0, 0.0, 0, 0.0, Outcome.CLOSED_FORM, _plan=lambda: plan)
    assert torch.equal(full.apply(torch.ones(2, 1)), torch.full((2, 1), 0.5))
    assert "_plan" not in full.to_dict()
