"""The pair that distillation's recipes share: equal starts, equal batches, features, one teacher a seed."""

import torch

from discrepancy.methods.distillation import KnowledgeDistillation
from discrepancy.recipes import mnist1d_pair as pair


def test_data_are_the_published_sizes():
    known = pair.data()
    assert known.train.shape == (4000, 40)
    assert known.test.shape == (1000, 40)
    assert known.train.dtype == torch.float32


def test_features_belong_to_the_logits():
    x = torch.randn(5, 40)
    for net, widths in ((pair.SignalCNN(), [(32, 20), (32, 10), (160,)]), (pair.SignalMLP(), [(64,), (64,)])):
        out = net.with_features(x)
        assert [tuple(f.shape[1:]) for f in out.features] == widths
        torch.testing.assert_close(net.head(out.features[-1]), out.logits)
        torch.testing.assert_close(net(x), out.logits)


def test_students_of_a_seed_start_equal_and_meet_equal_batches():
    torch.testing.assert_close(pair.student(3).head.weight, pair.student(3).head.weight, rtol=0, atol=0)
    assert not torch.equal(pair.student(3).head.weight, pair.student(4).head.weight)
    seen = []

    def record(student, teacher, target):
        seen.append(target)
        return pair.cross_entropy(student, teacher, target)

    for _ in range(2):
        pair.distilled(3, record, epochs=1, teacher_epochs=1)
    assert torch.equal(torch.cat(seen[:40]), torch.cat(seen[40:]))


def test_a_teacher_is_trained_once_and_frozen():
    net = pair.teacher(3, 1)
    assert pair.teacher(3, 1) is net
    assert not any(w.requires_grad for w in net.parameters())
    said = pair.teacher_outputs(3, 1)
    torch.testing.assert_close(said.logits[:50], net(pair.data().train[:50]))
    assert len(said.features) == 3


def test_losses_on_features_get_outputs_of_both():
    def hint(student, teacher, target):
        assert isinstance(student, pair.Outputs)
        assert teacher.features[-1].shape == (len(target), 160)
        return pair.cross_entropy(student, teacher, target)

    first = pair.distilled(3, hint, epochs=1, teacher_epochs=1, features=True)
    second = pair.distilled(3, pair.cross_entropy, epochs=1, teacher_epochs=1)
    torch.testing.assert_close(first.student.head.weight, second.student.head.weight)


def test_a_short_training_beats_chance_and_scores_agree():
    loss = KnowledgeDistillation(temperature=2.0)
    net = pair.distilled(3, loss, epochs=4, teacher_epochs=1).student
    found = pair.scores(net)
    known = pair.data()
    assert found.accuracy > 20
    assert found.accuracy == 100 * float((net(known.test).argmax(-1) == known.test_classes).double().mean())
    truth = torch.nn.functional.cross_entropy(net(known.test).double(), known.test_classes)
    assert abs(found.nll - float(truth.detach())) < 1e-9
