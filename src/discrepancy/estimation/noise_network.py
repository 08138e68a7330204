"""One network for the scores of a law, its margins and its conditionals: what is diffused, what is given, what is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from discrepancy.dynamics import LogUniformLevels, NoiseSchedule, perturb
from discrepancy.learning import AveragedTraining, EarlyStopping, Training
from discrepancy.networks import ResidualMLP

_STOPPING_DRAWS = 4096  # noisy rows behind each held-out score


@dataclass(frozen=True)
class View:
    """Which blocks of coordinates are diffused and which are given; the rest is left out. `law` numbers the sample."""

    diffused: tuple[bool, ...]
    given: tuple[bool, ...]
    law: int = 0

    @property
    def share(self) -> float:
        """How much of the training it gets: one part for each block that it diffuses."""
        return float(sum(self.diffused))


@dataclass(frozen=True)
class GaussianNoise:
    """The noise that one would guess if the diffused coordinates, given the others, were N(mean + slope (other), covariance).

    sigma (C + sigma^2 I)^-1 (y/a - mean - slope other): minus a sigma times the score of a (x + sigma e), in the axes of C.
    """

    mean: Tensor
    slope: Tensor
    values: Tensor
    axes: Tensor

    @staticmethod
    def conditional(mean: Tensor, covariance: Tensor, diffused: Tensor, given: Tensor) -> GaussianNoise:
        """From the joint mean (d,) and covariance (d, d), with boolean masks (d,)."""
        C = covariance.double()
        own = C[diffused][:, diffused]
        slope = torch.zeros(int(diffused.sum()), int(given.sum()), dtype=C.dtype, device=C.device)
        if bool(given.any()):
            slope = torch.linalg.solve(C[given][:, given], C[given][:, diffused]).T
            own = own - slope @ C[given][:, diffused]
        values, axes = torch.linalg.eigh((own + own.T) / 2)
        centre = mean.double()[diffused] - slope @ mean.double()[given]
        parts = (centre, slope, values.clamp_min(0), axes)
        return GaussianNoise(*(part.to(mean.dtype) for part in parts))

    def __call__(self, x: Tensor, other: Tensor, sigma: Tensor) -> Tensor:
        """The guess at x = y/a (n, k), given the others (n, l), at levels (n,)."""
        level = sigma[:, None]
        turned = (x - self.mean - other @ self.slope.T) @ self.axes
        return (turned * (level / (self.values + level.square()))) @ self.axes.T


@dataclass(frozen=True)
class ScoreTraining(AveragedTraining):
    """The options of denoising score matching."""

    loop: Training = field(default_factory=lambda: Training(steps=1500, learning_rate=4e-3, final_share=0.02, record_every=100))
    stopping: EarlyStopping = field(default_factory=lambda: EarlyStopping(every=100, patience=5))
    batch_size: int = 512


class NoiseNetwork(nn.Module):
    """The noise in a noisy row, for each of some views: a Gaussian guess and what a residual network adds to it.

    Without `guesses` that of N(0, I), which knows of no dependence. The network's part is multiplied by a, the share of the
    signal: at large noise the noisy row itself is the noise, and there is nothing to add. Inputs are the diffused coordinates,
    the given ones clean, and zeros for what is left out; the code says for each block which it is, and the level, as log(sigma)/4
    and as the shares 1/sqrt(1 + sigma^2) and sigma/sqrt(1 + sigma^2) of signal and noise; and the law.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        views: Sequence[View],
        network: ResidualMLP,
        schedule: NoiseSchedule,
        guesses: Sequence[GaussianNoise] | None,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Blocks are widths of x, y, ...; one guess a view, or None."""
        super().__init__()
        self.schedule, self.views, self.guesses = schedule, tuple(views), guesses
        self.laws = 1 + max(view.law for view in views)
        width = sum(blocks)
        codes = 5 * len(blocks) + (self.laws if self.laws > 1 else 0)
        self.net = network.build(width, codes, width, generator=generator, dtype=dtype)
        index = torch.repeat_interleave(torch.arange(len(blocks)), torch.tensor(blocks))
        for k, view in enumerate(views):
            self.register_buffer(f"diffused_{k}", torch.tensor(view.diffused)[index], persistent=False)
            self.register_buffer(f"given_{k}", torch.tensor(view.given)[index], persistent=False)

    def masks(self, view: int) -> tuple[Tensor, Tensor]:
        """Which coordinates are diffused and which are given, (d,) each."""
        return getattr(self, f"diffused_{view}"), getattr(self, f"given_{view}")

    def forward(self, view: int, noisy: Tensor, clean: Tensor, sigma: Tensor) -> Tensor:
        """The noise in the diffused coordinates, (n, k), from noisy and clean rows (n, d) and levels (n,)."""
        return self.several([view], [noisy], [clean], [sigma])[0]

    def several(
        self, views: Sequence[int], noisy: Sequence[Tensor], clean: Sequence[Tensor], sigma: Sequence[Tensor]
    ) -> list[Tensor]:
        """The same for several views in one pass of the network."""
        points, codes = [], []
        for k, y, c, s in zip(views, noisy, clean, sigma, strict=True):
            diffused, given = self.masks(k)
            points.append(torch.where(diffused, y, torch.where(given, c, torch.zeros_like(c))))
            codes.append(self._code(self.views[k], s))
        added = self.net(torch.cat(points), torch.cat(codes)).split([len(y) for y in noisy])
        out = []
        for k, y, c, s, net in zip(views, noisy, clean, sigma, added, strict=True):
            diffused, given = self.masks(k)
            a, level = self.schedule.scale(s)[:, None], s[:, None]
            x = y[:, diffused] / a
            if self.guesses is None:
                guess = x * (level / (1 + level.square()))
            else:
                guess = self.guesses[k](x, c[:, given], s)
            out.append(guess - a * net[:, diffused])
        return out

    def _code(self, view: View, sigma: Tensor) -> Tensor:
        one = torch.ones_like(sigma)
        signal = torch.rsqrt(1 + sigma.square())
        level = (sigma.log() / 4, signal, sigma * signal)
        parts = []
        for diffused, given in zip(view.diffused, view.given, strict=True):
            parts += [part if diffused else 0 * one for part in level]
            parts += [float(diffused) * one, float(given) * one]
        if self.laws > 1:
            parts += [float(view.law == law) * one for law in range(self.laws)]
        return torch.stack(parts, 1)


def train_noise_network(
    network: NoiseNetwork,
    rows: Sequence[Tensor],
    held_out: Sequence[Tensor],
    training: ScoreTraining,
    levels: LogUniformLevels,
    generator: torch.Generator,
) -> dict[str, list[float]]:
    """Denoising score matching of all views at once; ends with the averaged weights that did best on the held-out rows.

    `rows` and `held_out` hold a sample (n, d) a law. Each batch is divided among the views in proportion to the blocks that they
    diffuse. The loss is the mean squared error an entry, weighted by 1 + the share of coordinates that are not diffused; levels
    uniform in log sigma make it the bound on the divergence itself. Returns the record of the training, with "held_out".
    """
    views = network.views
    total = sum(view.share for view in views)
    sizes = [max(1, round(training.batch_size * view.share / total)) for view in views]
    width = rows[0].shape[1]

    def loss_of(samples: Sequence[Tensor], noise: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
        noisy, sigma = [n[0] for n in noise], [n[2] for n in noise]
        guesses = network.several(range(len(views)), noisy, samples, sigma)
        loss = samples[0].new_zeros(())
        for k, (guess, (_, e, _), view) in enumerate(zip(guesses, noise, views, strict=True)):
            diffused = network.masks(k)[0]
            weight = (2 - float(diffused.sum()) / width) * view.share / total
            loss = loss + weight * (guess - e[:, diffused]).square().mean()
        return loss

    def noised(sample: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        sigma = levels.draw(len(sample), network.schedule, generator, sample.device)
        y, e = perturb(sample, sigma, network.schedule, generator=generator)
        return y, e, sigma.to(sample.dtype)

    def step(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        batch = []
        for view, size in zip(views, sizes, strict=True):
            source = rows[view.law]
            batch.append(source[torch.randint(len(source), (size,), generator=generator).to(source.device)])
        return loss_of(batch, [noised(sample) for sample in batch]), {}

    fixed = []
    for view in views:
        sample = held_out[view.law]
        sample = sample.repeat(max(1, _STOPPING_DRAWS // len(sample)), 1)[: max(_STOPPING_DRAWS, 1)]
        fixed.append((sample, noised(sample)))

    def score() -> float:
        return -float(loss_of([sample for sample, _ in fixed], [noise for _, noise in fixed]))

    watch, history = training.run(network, step, score)
    network.requires_grad_(False)
    history["held_out"] = [-value for _, value in watch.history]
    return history


__all__ = ["GaussianNoise", "NoiseNetwork", "ScoreTraining", "View", "train_noise_network"]
