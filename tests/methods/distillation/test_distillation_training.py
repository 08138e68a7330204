"""The shared loop: same batches for same seeds, known or computed teachers, losses with weights of their own."""

from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from discrepancy import NumericalError
from discrepancy.methods.distillation import Epochs, KnowledgeDistillation, distil, outputs_of


class Both(NamedTuple):
    logits: torch.Tensor
    features: tuple[torch.Tensor, ...]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4))


X = torch.randn(90, 3, generator=torch.Generator().manual_seed(7))
Y = torch.randint(4, (90,), generator=torch.Generator().manual_seed(8))
SHORT = Epochs(3, batch=40, learning_rate=1e-2)


def test_known_and_computed_teachers_give_the_same_student():
    teacher = net(1)
    loss = KnowledgeDistillation(temperature=2.0)
    first = distil(net(), X, Y, loss, teacher=teacher, epochs=SHORT, generator=generator())
    second = distil(net(), X, Y, loss, teacher=outputs_of(teacher, X), epochs=SHORT, generator=generator())
    torch.testing.assert_close(first.student[0].weight, second.student[0].weight)
    assert first.steps == 9
    assert len(first.history["loss"]) == 4  # once an epoch, and the last step
    assert not teacher.training
    assert not first.student.training


def test_every_example_is_met_once_an_epoch_and_equal_seeds_meet_equal_batches():
    orders = []
    for seed in (5, 5, 6):
        seen: list[torch.Tensor] = []

        def record(student, teacher, target, seen=seen):
            seen.append(target)
            return student.square().mean()

        distil(net(), X, torch.arange(90), record, epochs=Epochs(2, batch=40), generator=generator(seed))
        assert [len(t) for t in seen] == [40, 40, 10] * 2
        for epoch in (seen[:3], seen[3:]):
            assert torch.equal(torch.cat(epoch).sort().values, torch.arange(90))
        assert not torch.equal(torch.cat(seen[:3]), torch.cat(seen[3:]))
        orders.append(torch.cat(seen))
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


def test_a_losss_own_weights_are_trained():
    class Projected(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(8, 2)

        def forward(self, student, teacher, target):
            fit = (self.head(student.features[0]) - teacher.features[0]).square().mean()
            return fit + F.cross_entropy(student.logits, target), {"fit": fit.detach()}

    def with_features(model, x):
        h = model[1](model[0](x))
        return Both(model[2](h), (h,))

    loss = Projected()
    before = loss.head.weight.detach().clone()
    said = Both(torch.zeros(90, 4), (X[:, :2],))
    options = Epochs(20, batch=30, learning_rate=1e-2)
    found = distil(net(), X, Y, loss, teacher=said, forward=with_features, epochs=options, generator=generator())
    assert not torch.equal(before, loss.head.weight)
    assert found.history["fit"][-1] < 0.3 * found.history["fit"][0]


def test_outputs_of_any_nesting_are_joined_and_the_mode_is_restored():
    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5))

    def said(x):
        h = model(x)
        return {"h": h, "pair": (h, [h.sum(-1)])}

    whole = outputs_of(model, X, chunk=7)
    torch.testing.assert_close(whole, outputs_of(model, X))
    assert model.training
    assert not whole.requires_grad
    model.eval()
    nested = outputs_of(said, X, chunk=11)
    torch.testing.assert_close(nested["pair"][1][0], whole.sum(-1))


def test_a_student_learns_what_a_linear_teacher_says():
    teacher = nn.Linear(3, 4)
    student = nn.Linear(3, 4)
    loss = KnowledgeDistillation(temperature=1.0, weight=1.0, task_weight=0.0)
    options = Epochs(300, batch=90, learning_rate=0.1)
    distil(student, X, None, loss, teacher=teacher, epochs=options, generator=generator())
    gap = torch.softmax(student(X), -1) - torch.softmax(teacher(X), -1)
    assert float(gap.detach().abs().max()) < 1e-2


def test_frozen_parts_stay():
    student = net()
    student[0].requires_grad_(False)
    before = student[0].weight.clone()
    distil(student, X, Y, lambda s, t, y: F.cross_entropy(s, y), epochs=SHORT)
    assert torch.equal(before, student[0].weight)


def test_bad_calls_are_refused():
    def loss(s, t, y):
        return s.sum()

    model = net()
    with pytest.raises(ValueError, match="90 inputs and 89 targets"):
        distil(model, X, Y[1:], loss)
    with pytest.raises(ValueError, match="same module"):
        distil(model, X, Y, loss, teacher=model)
    with pytest.raises(ValueError, match=r"teacher's outputs have length \[10\]"):
        distil(model, X, Y, loss, teacher=torch.zeros(10, 4))
    with pytest.raises(TypeError, match="teacher must be callable or its outputs"):
        distil(model, X, Y, loss, teacher="cnn")
    with pytest.raises(ValueError, match="nothing to train"):
        distil(nn.ReLU(), X, Y, loss)
    with pytest.raises(ValueError, match="epochs"):
        Epochs(0)
    with pytest.raises(ValueError, match="learning_rate"):
        Epochs(1, learning_rate=-1.0)
    with pytest.raises(NumericalError, match="step 0"):
        distil(model, X, Y, lambda s, t, y: s.sum() * torch.nan, epochs=SHORT)
