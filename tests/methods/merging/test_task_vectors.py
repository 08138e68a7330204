import copy

import pytest
import torch
from torch import nn

from discrepancy.methods.merging import Averaging, TaskArithmetic, TaskVectors, adapted, recalibrated


def net(seed, normalised=False):
    torch.manual_seed(seed)
    layers = (
        [nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)]
        if normalised
        else [nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)]
    )
    return nn.Sequential(*layers)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        return self.head(self.embed(ids))


def shifted(model, seed, scale=0.1):
    generator = torch.Generator().manual_seed(seed)
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for w in moved.parameters():
            w += scale * torch.randn(w.shape, generator=generator)
    return moved


def test_updates_are_differences_and_experts_come_back():
    base = net(0)
    experts = [shifted(base, s) for s in (1, 2)]
    vectors = TaskVectors(base, experts)
    assert len(vectors) == 2
    for name, weight in base.named_parameters():
        for i, expert in enumerate(experts):
            torch.testing.assert_close(vectors.updates[name][i], expert.state_dict()[name] - weight, rtol=0, atol=0)
    x = torch.randn(6, 5)
    back = vectors.model(vectors.expert(1))
    torch.testing.assert_close(back(x), experts[1](x), rtol=1e-6, atol=1e-6)
    total = sum(((e.state_dict()[n] - w) ** 2).sum() for e in experts[:1] for n, w in base.named_parameters()).sqrt()
    torch.testing.assert_close(vectors.norms()[0], total.double(), rtol=1e-5, atol=0)


def test_modules_state_dicts_and_files_agree(tmp_path):
    from safetensors.torch import save_file

    base, expert = net(0), shifted(net(0), 1)
    save_file(base.state_dict(), tmp_path / "base.safetensors")
    (tmp_path / "shards").mkdir()
    state = expert.state_dict()
    save_file({k: state[k] for k in list(state)[:2]}, tmp_path / "shards" / "one.safetensors")
    save_file({k: state[k] for k in list(state)[2:]}, tmp_path / "shards" / "two.safetensors")
    by_module = TaskVectors(base, [expert])
    by_file = TaskVectors(str(tmp_path / "base.safetensors"), [tmp_path / "shards"])
    by_state = TaskVectors(base.state_dict(), [expert.state_dict()])
    for name in by_module.names:
        assert torch.equal(by_module.updates[name], by_file.updates[name])
        assert torch.equal(by_module.updates[name], by_state.updates[name])
    with pytest.raises(TypeError, match="needs to run the model"):
        Averaging().merge(by_file).model()


def test_a_saved_model_loads_back(tmp_path):
    from safetensors.torch import load_file

    base = net(0)
    merged = Averaging().merge(TaskVectors(base, [shifted(base, 1), shifted(base, 2)]))
    file = merged.save(tmp_path / "merged.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["merged.safetensors"]
    again = net(3)
    again.load_state_dict(load_file(file))
    x = torch.randn(4, 5)
    assert torch.equal(again(x), merged.model()(x))
    with pytest.raises(ValueError, match="safetensors"):
        merged.save(tmp_path / "merged.pt")


def test_tied_weights_count_once_and_stay_tied(tmp_path):
    from safetensors.torch import load_model

    base = Tied()
    experts = [shifted(base, s) for s in (1, 2)]
    for expert in experts:
        assert expert.head.weight is expert.embed.weight
    vectors = TaskVectors(base, experts)
    assert vectors.names == ("embed.weight",)
    merged = TaskArithmetic(1.0).merge(vectors)
    expected = sum(e.embed.weight for e in experts) - base.embed.weight
    model = merged.model()
    assert model.head.weight is model.embed.weight
    torch.testing.assert_close(model.embed.weight, expected)
    merged.save(tmp_path / "tied.safetensors")
    loaded = Tied()
    load_model(loaded, tmp_path / "tied.safetensors")
    assert torch.equal(loaded.head.weight, model.head.weight)
    # A file leaves one of the names out; a state dict may hold both.
    one = {"head.weight": experts[0].head.weight}
    assert torch.equal(TaskVectors(base, [one]).updates["embed.weight"][0], vectors.updates["embed.weight"][0])
    apart = {"head.weight": experts[0].head.weight, "embed.weight": experts[1].embed.weight}
    with pytest.raises(ValueError, match="tied in the base and differ"):
        TaskVectors(base, [apart])


def test_gradients_flow_through_a_bound_model_with_tied_weights():
    base = Tied()
    vectors = TaskVectors(base, [shifted(base, 1)])
    scale = torch.tensor(0.3, requires_grad=True)
    ids = torch.tensor([[1, 2, 3]])
    out = vectors.bound(vectors.moved({"embed.weight": scale * vectors.updates["embed.weight"][0]}))(ids)
    out.square().sum().backward()
    table = base.embed.weight.detach() + 0.3 * vectors.updates["embed.weight"][0]
    torch.testing.assert_close(out, table[ids] @ table.T)
    assert scale.grad is not None
    assert float(scale.grad.abs()) > 0


def test_half_precision_keeps_small_updates():
    base = nn.Linear(4, 3).bfloat16()
    small = {k: v.float() + 1e-4 for k, v in base.state_dict().items()}
    vectors = TaskVectors(base, [small, small])
    assert vectors.updates["weight"].dtype == torch.float32
    torch.testing.assert_close(vectors.updates["weight"], torch.full((2, 3, 4), 1e-4), rtol=2e-2, atol=0)
    merged = TaskArithmetic(50.0).merge(vectors)
    torch.testing.assert_close(merged.update["weight"], torch.full((3, 4), 1e-2), rtol=2e-2, atol=0)
    assert merged.state_dict()["weight"].dtype == torch.bfloat16
    assert merged.model().weight.dtype == torch.bfloat16
    assert TaskVectors(nn.Linear(2, 2).double(), [nn.Linear(2, 2).double()]).updates["weight"].dtype == torch.float64


def test_running_statistics_are_averaged_and_counters_come_from_the_base():
    base = net(0, normalised=True)
    experts = []
    for seed, center in ((1, 2.0), (2, -6.0)):
        expert = shifted(base, seed)
        expert[1].running_mean.fill_(center)
        expert[1].running_var.fill_(abs(center))
        expert[1].num_batches_tracked.fill_(seed)
        experts.append(expert)
    base[1].num_batches_tracked.fill_(9)
    vectors = TaskVectors(base, experts)
    assert not any("running" in n for n in vectors.names)
    merged = TaskArithmetic(1.0).merge(vectors).model()
    torch.testing.assert_close(merged[1].running_mean, torch.full((4,), -2.0))
    torch.testing.assert_close(merged[1].running_var, torch.full((4,), 4.0))
    assert int(merged[1].num_batches_tracked) == 9
    weighted = Averaging().merge(vectors, [0.75, 0.25]).model()
    torch.testing.assert_close(weighted[1].running_mean, torch.zeros(4))
    torch.testing.assert_close(vectors.model(vectors.expert(0))[1].running_mean, torch.full((4,), 2.0))
    # A plain state dict knows them by name.
    assert not any("running" in n for n in TaskVectors(base.state_dict(), [experts[0].state_dict()]).names)


def test_recalibrated_statistics_are_those_of_the_inputs():
    model = net(0, normalised=True)
    rate = model[1].momentum
    x = torch.randn(40, 5) * 3 + 1
    recalibrated(model, [x[:20], x[20:]])
    hidden = model[0](x)
    torch.testing.assert_close(model[1].running_mean, hidden.mean(0), rtol=1e-5, atol=1e-5)
    expected = torch.stack([hidden[:20].var(0), hidden[20:].var(0)]).mean(0)
    torch.testing.assert_close(model[1].running_var, expected, rtol=1e-5, atol=1e-5)
    assert model[1].momentum == rate
    assert model.training
    with pytest.raises(ValueError, match="no batch normalisation"):
        recalibrated(net(0), x)


def test_low_rank_adapters_merge_by_their_product():
    base = net(0)
    A, B = torch.randn(2, 5), torch.randn(4, 2)
    state = adapted(
        base, {"base_model.model.0.lora_A.default.weight": A, "base_model.model.0.lora_B.default.weight": B}, scale=0.5
    )
    vectors = TaskVectors(base, [state])
    torch.testing.assert_close(vectors.updates["0.weight"][0], 0.5 * B @ A, rtol=1e-5, atol=1e-6)
    assert float(vectors.updates["2.weight"].abs().max()) == 0
    with pytest.raises(TypeError, match=r"adapted\(base, adapter"):
        TaskVectors(base, [{"0.lora_A.weight": A, "0.lora_B.weight": B}])
    with pytest.raises(ValueError, match="does not have"):
        adapted(base, {"9.lora_A.weight": A, "9.lora_B.weight": B})
    with pytest.raises(ValueError, match="not its partner"):
        adapted(base, {"0.lora_A.weight": A})
    with pytest.raises(ValueError, match="transposed=True"):
        adapted(base, {"0.lora_A.weight": torch.randn(2, 4), "0.lora_B.weight": torch.randn(5, 2)})
    with pytest.raises(ValueError, match="neither"):
        adapted(base, {"0.weight": A})


def test_a_peft_model_is_refused_until_merged():
    peft = pytest.importorskip("peft")
    from discrepancy.language_models import tiny_gpt2

    base = tiny_gpt2(11, width=8, heads=2, layers=1)
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["c_attn"], init_lora_weights=False, fan_in_fan_out=True)
    model = peft.get_peft_model(copy.deepcopy(base), config)
    with pytest.raises(TypeError, match="merge_and_unload"):
        TaskVectors(base, [model])
    adapter = peft.get_peft_model_state_dict(model)
    by_product = TaskVectors(base, [adapted(base, adapter, scale=2.0, transposed=True)])
    by_peft = TaskVectors(base, [model.merge_and_unload()])
    for name in by_peft.names:
        torch.testing.assert_close(by_product.updates[name], by_peft.updates[name], rtol=1e-4, atol=1e-6)
    assert float(by_peft.norms()[0]) > 0
    assert by_peft.stored_transposed("transformer.h.0.attn.c_attn.weight")
    assert by_peft.is_embedding("transformer.wte.weight")


@pytest.mark.parametrize(
    ("expert", "error", "words"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "2.bias"}, ValueError, "lacks '2.bias'"),
        (lambda s: s | {"other": torch.zeros(1)}, ValueError, "has 'other'"),
        (lambda s: s | {"0.weight": torch.zeros(5, 4)}, ValueError, r"'0.weight' has shape \(5, 4\) and the base's \(4, 5\)"),
        (lambda s: s | {"0.weight": torch.full((4, 5), float("nan"))}, ValueError, "not finite"),
        (lambda s: {"state_dict": s}, TypeError, r"may be in experts\[0\]\[\"state_dict\"\]"),
        (lambda s: 3, TypeError, "nn.Module, a state dict or a .safetensors"),
        (lambda s: "model.pt", TypeError, "no .safetensors file"),
        (lambda s: "model.safetensors", ValueError, "no file"),
        (lambda s: {"0.weight": torch.zeros(4, 5, dtype=torch.complex64)}, TypeError, "complex"),
        (lambda s: {"0.weight": torch.zeros(4, 5, device="meta")}, ValueError, "meta"),
        (lambda s: {"count": torch.zeros(3, dtype=torch.long)}, ValueError, "nothing to merge"),
    ],
)
def test_what_does_not_fit_is_named(expert, error, words):
    base = net(0)
    with pytest.raises(error, match=words):
        TaskVectors(base, [expert(dict(base.state_dict()))])


def test_experts_must_be_a_list():
    with pytest.raises(TypeError, match="put it in a list"):
        TaskVectors(net(0), net(1))
    with pytest.raises(ValueError, match="empty"):
        TaskVectors(net(0), [])


def test_later_training_of_the_base_changes_nothing():
    base = net(0)
    vectors = TaskVectors(base, [shifted(base, 1)])
    before = vectors.expert(0)["0.weight"].clone()
    with torch.no_grad():
        base[0].weight.zero_()
    assert torch.equal(vectors.expert(0)["0.weight"], before)
    assert torch.equal(vectors.model(vectors.expert(0))[0].weight, before)
