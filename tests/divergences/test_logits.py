"""Divergences of logits: the compiled loops and the streamed formula beside the plain one, in every precision and layout."""

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from divergence_table import EVERY

from discrepancy import KL, ChiSquared, CustomDivergence, JensenShannon, ReverseKL, TotalVariation
from discrepancy.divergences import InfiniteDivergenceWarning, Renyi, SkewedJensenShannon
from discrepancy.divergences import streamed as streaming
from discrepancy.divergences.loop_terms import loop_terms

f64 = torch.float64
LOOPED = [*EVERY, 2 * JensenShannon() + KL(), SkewedJensenShannon(0.03), SkewedJensenShannon(0.8)]


def pair(*shape, seed=0, dtype=f64, apart=1.0):
    draw = torch.Generator().manual_seed(seed)
    u = 3 * torch.randn(shape, generator=draw, dtype=f64)
    return u.to(dtype), (u + apart * torch.randn(shape, generator=draw, dtype=f64)).to(dtype)


def truth(D, u, v, weights=None):
    """Value and gradients in float64 by automatic differentiation of the plain formula."""
    u, v = u.detach().double().requires_grad_(), v.detach().double().requires_grad_()
    value = D._from_logits(torch.log_softmax(u, -1), torch.log_softmax(v, -1))
    weights = torch.ones_like(value) if weights is None else weights.double()
    return value.detach(), *torch.autograd.grad((value * weights).sum(), (u, v))


def ours(D, u, v, weights=None, **options):
    u, v = u.detach().requires_grad_(), v.detach().requires_grad_()
    value = D.from_logits(u, v, **options)
    weights = torch.ones_like(value) if weights is None else weights.to(value.dtype)
    return value.detach(), *torch.autograd.grad((value * weights).sum(), (u, v))


def close(got, want, tolerance):
    """Row by row, relative to the row's largest entry."""
    for g, w in zip(got, want, strict=True):
        size = w.abs() if w.ndim < want[1].ndim else w.abs().amax(-1, keepdim=True)
        assert bool(((g.double() - w).abs() <= tolerance * size + 1e-300).all()), float(((g.double() - w).abs() / size).max())


@pytest.mark.parametrize("D", LOOPED, ids=repr)
def test_loops_agree_with_the_plain_formula(D):
    assert loop_terms(D, 1e-12) is not None
    weights = torch.rand(4, 3, generator=torch.Generator().manual_seed(3), dtype=f64)
    u, v = pair(4, 3, 1100)
    close(ours(D, u, v, weights), truth(D, u, v, weights), 1e-11)
    close(
        ours(D, u + 1e4, v - 300, weights), truth(D, u + 1e4, v - 300, weights), 1e-8
    )  # eps * 1e4, of which the truth has as much
    u, v = pair(2, 3, 70, apart=1e-6)
    value, *_ = ours(D, u, v)
    want, *_ = truth(D, u, v)
    torch.testing.assert_close(value, want, rtol=1e-8 if D.smooth else 1e-6, atol=0)
    for x, y in ((u, u), (u, u + 0.5)):
        value, gu, gv = ours(D, x, y)
        assert bool((value >= 0).all())
        assert float(value.abs().max()) < 1e-30 if x is y else float(value.abs().max()) < 1e-15
        if x is y:
            assert float(gu.abs().max()) < 1e-15
            assert float(gv.abs().max()) < 1e-15


@pytest.mark.parametrize("D", LOOPED, ids=repr)
def test_gradients_are_the_slopes_of_values(D):
    u, v = (t.requires_grad_() for t in pair(2, 5))
    assert torch.autograd.gradcheck(D.from_logits, (u, v))
    if D.smooth:
        assert torch.autograd.gradgradcheck(D.from_logits, (u, v))


@pytest.mark.parametrize(("dtype", "grain"), [(torch.float32, 5e-5), (torch.bfloat16, 8e-3), (torch.float16, 2e-3)], ids=str)
@pytest.mark.parametrize("D", [*LOOPED, KL().skewed(0.3)], ids=repr)
def test_lower_precisions(D, dtype, grain):
    u, v = pair(3, 900, dtype=dtype)
    got, want = ours(D, u, v), truth(D, u, v)
    assert got[0].dtype == torch.float32
    assert got[1].dtype == got[2].dtype == dtype
    torch.testing.assert_close(got[0].double(), want[0], rtol=2e-6, atol=0)
    close(got[1:], want[1:], grain)
    if dtype == torch.bfloat16:
        mixed = ours(D, u, v.double())
        assert (mixed[0].dtype, mixed[1].dtype, mixed[2].dtype) == (f64, torch.bfloat16, f64)
        torch.testing.assert_close(mixed[0], want[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("D", [*LOOPED, KL().skewed(0.3)], ids=repr)
def test_excluded_categories(D):
    u, v = pair(5, 80)
    u[0, 3] = v[1, 70] = u[2, 2] = v[2, 2] = u[3, 0] = v[3, 1] = -torch.inf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InfiniteDivergenceWarning)
        got, want = ours(D, u, v), truth(D, u, v)
    finite = torch.isfinite(want[0])
    assert torch.equal(torch.isfinite(got[0]), finite)
    close([t[finite] for t in got], [t[finite] for t in want], 1e-11)
    assert all(bool((t[~finite] == 0).all()) for t in got[1:])
    mask = torch.rand(5, 80, generator=torch.Generator().manual_seed(1)) < 0.7
    u, v = pair(5, 80, seed=2)
    kept = torch.stack([D.from_logits(a[m], b[m]) for a, b, m in zip(u, v, mask, strict=True)])
    value, gu, gv = ours(D, torch.where(mask, u, torch.nan), v, mask=mask)
    torch.testing.assert_close(value, kept, rtol=1e-12, atol=0)
    assert bool((gu[~mask] == 0).all())
    assert bool((gv[~mask] == 0).all())


@pytest.mark.parametrize("D", LOOPED, ids=repr)
@pytest.mark.parametrize("scale", [1e2, 1e4, 1e30])
def test_extreme_logits_give_no_nan(D, scale):
    for dtype in (torch.float32, f64):
        u, v = pair(6, 40, dtype=dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InfiniteDivergenceWarning)
            value, gu, gv = ours(D, u * scale, v * scale)
            one_hot, *slopes = ours(D, torch.full_like(u, -torch.inf).index_fill_(1, torch.tensor([3]), 0.0), v)
        for t in (value, gu, gv, one_hot, *slopes):
            assert not bool(torch.isnan(t).any())
        assert bool((value >= 0).all())


def test_minimum_of_the_type_as_a_mask():
    u, v = pair(4, 30, dtype=torch.float32)
    for D in (KL(), JensenShannon(), ChiSquared()):
        want = D.from_logits(u[:, :20], v[:, :20])
        low = torch.finfo(torch.float32).min
        for a, b in ((u, v), (u.bfloat16(), v.bfloat16())):
            a, b = a.clone(), b.clone()
            a[:, 20:] = b[:, 20:] = low if a.dtype == torch.float32 else torch.finfo(torch.bfloat16).min
            got = D.from_logits(a, b)
            torch.testing.assert_close(
                got, want if a.dtype == torch.float32 else D.from_logits(a[:, :20], b[:, :20]), rtol=1e-5, atol=0
            )


class Plain:
    """A user's divergence of logits that the loops do not know."""

    divergences = (CustomDivergence(lambda t: t * t.log()), KL().skewed(0.3), Renyi(2.0))


@pytest.mark.parametrize("D", [KL(), TotalVariation(), *Plain.divergences], ids=repr)
def test_layouts_and_rows_that_count(D, monkeypatch):
    from discrepancy.divergences import row_blocks

    for module, name in ((streaming, "SMALL"), (streaming, "BLOCK"), (row_blocks, "SMALL")):
        monkeypatch.setattr(module, name, 60)  # several blocks, and tables that are not copied
    u, v = pair(3, 6, 25)
    whole = truth(D, u, v)
    tolerance = 1e-8 if isinstance(D, CustomDivergence) else 1e-11
    close(ours(D, u, v), whole, tolerance)
    long_u, long_v = torch.cat([u, u], 1), torch.cat([v, v], 1)  # rows that are no single table
    close(ours(D, long_u[:, :6], long_v[:, 6:]), whole, tolerance)
    turned = ours(D, u.transpose(0, 2), v.transpose(0, 2), dim=0)
    close([turned[0].T, *(t.transpose(0, 2) for t in turned[1:])], whole, tolerance)
    one = u[:1, :1]
    value, gu, gv = ours(D, one, v)
    want, wu, wv = truth(D, one.expand(3, 6, 25), v)
    close([value, gv], [want, wv], tolerance)
    torch.testing.assert_close(gu, wu.sum((0, 1), keepdim=True), rtol=1e-9, atol=1e-12)
    where = torch.rand(3, 6, generator=torch.Generator().manual_seed(5)) < 0.4
    spoiled = torch.where(where.unsqueeze(-1), u, torch.nan)
    value, gu, gv = ours(D, spoiled, v, where=where)
    close([value[where], gu[where], gv[where]], [t[where] for t in whole], tolerance)
    assert all(bool((t[~where] == 0).all()) for t in (value, gu, gv))


def test_any_number_of_threads_gives_the_same_bits():
    u, v = pair(64, 9000, dtype=torch.float32)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = ours(JensenShannon(), u, v)
        torch.set_num_threads(2)
        assert all(torch.equal(a, b) for a, b in zip(alone, ours(JensenShannon(), u, v), strict=True))
    finally:
        torch.set_num_threads(threads)


def test_refusals():
    u, v = pair(4, 6)
    with pytest.raises(ValueError, match=r"u has 6 categories along dim -1 and v has 5.*cut both, logits\[\.\.\., :5\]"):
        KL().from_logits(u, v[:, :5])
    with pytest.raises(ValueError, match="where keeps none of the 4 row"):
        KL().from_logits(u, v, where=torch.zeros(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="where has shape"):
        KL().from_logits(u, v, where=torch.ones(4, 6, dtype=torch.bool))
    with pytest.raises(TypeError, match="where must be boolean"):
        KL().from_logits(u, v, where=torch.ones(4))
    with pytest.raises(ValueError, match="row without a category"):
        KL().from_logits(u, v, mask=torch.zeros(6, dtype=torch.bool))
    for bad in (torch.nan, torch.inf):
        for D in (KL(), KL().skewed(0.2)):
            w = v.clone()
            w[2, 3] = bad
            with pytest.raises(ValueError, match=r"v has 1 logit\(s\) that are NaN or \+inf, the first at index \(2, 3\)"):
                D.from_logits(u, w)
            assert D.from_logits(u, w, where=torch.tensor([True, True, False, True]))[2] == 0
    with pytest.raises(ValueError, match="meta device"):
        KL().from_logits(u.to("meta"), v)


@pytest.mark.parametrize("D", [KL(), JensenShannon(), KL().skewed(0.3)], ids=repr)
def test_torch_func_and_compile(D):
    u, v = pair(3, 7)
    value, gu, gv = truth(D, u, v)

    def total(a, b):
        return D.from_logits(a, b).sum()

    torch.testing.assert_close(torch.func.grad(total, argnums=(0, 1))(u, v), (gu, gv))
    torch.testing.assert_close(torch.func.vmap(D.from_logits)(u, v), value)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(total))(u, v), gu)
    _, slope = torch.func.jvp(lambda a: D.from_logits(a, v), (u,), (v,))
    torch.testing.assert_close(slope, (gu * v).sum(-1))
    model = torch.nn.Linear(7, 7, dtype=f64)
    parameters = dict(model.named_parameters())

    def loss(theta):
        return D.from_logits(u, torch.func.functional_call(model, theta, (v,))).mean()

    for name, gradient in torch.func.grad(loss)(parameters).items():
        loss(parameters).backward(inputs=[parameters[name]])
        torch.testing.assert_close(gradient, parameters[name].grad)
    torch.testing.assert_close(torch.compile(total, backend="eager")(u, v), value.sum())


def test_streamed_memory_is_inputs_gradient_and_blocks(monkeypatch):
    """No tensor of the logits' size but the gradient is made: counted where torch and the loops allocate."""
    u, v = (t.requires_grad_() for t in pair(600, 2000, dtype=torch.float32))
    for D in (KL(), KL().skewed(0.3)):
        sizes = []
        with torch.utils._python_dispatch._disable_current_modes(), _Watch(sizes):
            D.from_logits(u.detach(), v).sum().backward()
        assert sum(size >= u.numel() for size in sizes) == 1, sizes
        v.grad = None


@pytest.mark.slow
def test_peak_memory_of_a_process():
    """128 x 150,000 in float32: the resident set's high-water mark is the inputs, one gradient and little more."""
    script = """
import ctypes, sys
from pathlib import Path
import torch
from discrepancy import KL
torch.set_num_threads(1)
status = lambda name: next(int(l.split()[1]) for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(name))
KL().from_logits(torch.zeros(2, 8), torch.ones(2, 8, requires_grad=True)).sum().backward()
u, v = torch.empty(128, 150_000).normal_(), torch.empty(128, 150_000).normal_().requires_grad_()
ctypes.CDLL(None).malloc_trim(0)
Path("/proc/self/clear_refs").write_text("5")
before, inputs = status("VmRSS"), 2 * u.numel() * 4 / 1024
KL().from_logits(u, v).sum().backward()
print((status("VmHWM") - before + inputs) / inputs)
"""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the high-water mark is read from /proc")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.6


class _Watch(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes the size of every tensor that an operation allocates."""

    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        old = {t.untyped_storage().data_ptr() for t in args if isinstance(t, torch.Tensor)}
        for t in out if isinstance(out, tuple | list) else [out]:
            if isinstance(t, torch.Tensor) and t.untyped_storage().data_ptr() not in old:
                self.sizes.append(t.untyped_storage().nbytes() // t.element_size())
        return out


def test_one_tensor_on_both_sides():
    u, _ = pair(3, 9)
    u.requires_grad_()
    D = KL().skewed(0.2)
    for f in (KL(), D):
        assert bool((torch.autograd.grad(f.from_logits(u, u).sum(), u)[0].abs() < 1e-14).all())
        (got,) = torch.autograd.grad(f.from_logits(u, u.flip(-1)).sum(), u)
        (want,) = torch.autograd.grad(f._from_logits(u.log_softmax(-1), u.flip(-1).log_softmax(-1)).sum(), u)
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-13)


def test_exact_symmetry_and_reversal():
    u, v = pair(50, 333, dtype=torch.float32)
    for D in (JensenShannon(), TotalVariation()):
        assert torch.equal(D.from_logits(u, v), D.from_logits(v, u))
    assert torch.equal(KL().from_logits(u, v), ReverseKL().from_logits(v, u))


@pytest.mark.parametrize("D", [KL(), TotalVariation(), KL().skewed(0.3)], ids=repr)
def test_long_probability_vectors_by_pieces(D):
    """Vectors longer than a piece, with zeros at its border: the sum and the gradient of their halves."""
    draw = torch.Generator().manual_seed(0)
    p, q = (torch.rand(2, 100_000, generator=draw, dtype=f64) for _ in range(2))
    p[:, 65_530:65_540] = 0
    p, q = p / p.sum(-1, keepdim=True), (q / q.sum(-1, keepdim=True)).requires_grad_()
    value = D.from_probs(p, q)
    (slope,) = torch.autograd.grad(value.sum(), q)
    terms = torch.where(p > 0, q * D.generator(torch.where(p > 0, p / q, torch.ones_like(p))), q * D.at_zero)
    torch.testing.assert_close(value, terms.sum(-1), rtol=1e-11, atol=0)
    (want,) = torch.autograd.grad(terms.sum(), q)
    want = want - (q * want).sum(-1, keepdim=True)  # from_probs divides by the sum
    torch.testing.assert_close(slope, want.detach(), rtol=1e-8, atol=1e-11)
