"""Random rotations: Haar's, and structured ones from sign flips and Walsh-Hadamard transforms."""

from __future__ import annotations

import enum
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from discrepancy._validate import as_tensor, generator_or_default, require_finite, whole_number
from discrepancy.directions.walsh_hadamard import hadamard_transform, is_power_of_two, next_power_of_two


def _whole(value: int, name: str) -> int:
    whole_number(value, 1, name)
    return value


def haar_rotations(d: int, count: int, generator: torch.Generator) -> Float[Tensor, "count d d"]:
    """Independent matrices from Haar's law on O(d), in float64: Q of a Gaussian matrix, R's signs moved into it. count d^3 time.

    Without the signs the law depends on how the decomposition chooses them. Source: Mezzadri (2007).
    """
    z = torch.randn(count, d, d, generator=generator, dtype=torch.float64, device=generator.device)
    q, r = torch.linalg.qr(z)
    return q * torch.sign(torch.diagonal(r, dim1=-2, dim2=-1))[..., None, :]


def haar_rotation(
    d: int, *, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float64
) -> Float[Tensor, "d d"]:
    """One matrix from Haar's law on O(d): U u is uniform on the sphere of radius |u|. d^3 time, d^2 memory."""
    return haar_rotations(_whole(d, "d"), 1, generator_or_default(generator))[0].to(dtype)


class Padding(enum.Enum):
    """What a Hadamard rotation does in a dimension that is no power of two."""

    FORBIDDEN = "raise an error"
    ZEROS = "append zeros up to the next power of two: an embedding, whose coordinates have the size 1/sqrt(padded dimension)"
    WINDOWS = "transform the first, then the last 2^k coordinates, 2^k the largest power of two in d: a rotation of R^d"


def random_signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Independent fair signs +-1 of the given shape, as int8."""
    return torch.randint(0, 2, shape, generator=generator, device=generator.device, dtype=torch.int8) * 2 - 1


class HadamardRotation(nn.Module):
    """x -> (H D_1 / sqrt d) ... (H D_blocks / sqrt d) x, a random rotation in d log d time and blocks x d random bits.

    H is the Walsh-Hadamard matrix, D_k are diagonals of independent fair signs, drawn once for each instance: all vectors meet
    the same rotation. D_blocks acts first. `blocks=2` is the paper's: each coordinate of the image of any unit vector is
    within C d^(-1/5) of Haar's (Kolmogorov), the whole vector is not (see `hadamard_w2_to_sphere`); one block sends every
    axis to a vertex of the cube. Exactly orthogonal: lengths and inner products are kept to rounding.

    forward (..., dim) -> (..., size), where size = dim unless zeros are padded; `inverse` is the transpose, a left inverse.
    `padding` says what happens where dim is no power of two. Signs are int8 buffers (blocks, size): they follow `.to(device)`,
    are saved with the state, and leave the input's dtype alone. Raises ValueError for dim or blocks below 1, for a dim that is
    no power of two unless padding allows it, and for vectors of another dimension. Source: Zilca and Mendelson (2026).
    """

    references: ClassVar[tuple[str, ...]] = ("hadamard-rotations",)
    signs: Tensor

    def __init__(
        self,
        dim: int,
        blocks: int = 2,
        *,
        padding: Padding = Padding.FORBIDDEN,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.dim, self.blocks = _whole(dim, "dim"), _whole(blocks, "blocks")
        if not isinstance(padding, Padding):
            raise TypeError(f"padding must be a Padding, such as Padding.ZEROS, got {padding!r}")
        self.padding = padding
        if padding is Padding.FORBIDDEN and not is_power_of_two(dim):
            raise ValueError(
                f"dim must be a power of two, got {dim}: the next is {next_power_of_two(dim)}; padding=Padding.ZEROS embeds "
                "into it, padding=Padding.WINDOWS rotates overlapping windows"
            )
        self.size = next_power_of_two(dim) if padding is Padding.ZEROS else dim
        self.register_buffer("signs", random_signs((blocks, self.size), generator_or_default(generator)))

    def extra_repr(self) -> str:
        """The options, for `repr`."""
        return f"{self.dim}, blocks={self.blocks}, padding={self.padding}"

    def _checked(self, x: Any, width: int) -> Tensor:
        x = as_tensor(x, "x")
        if x.ndim == 0 or x.shape[-1] != width:
            raise ValueError(f"x must have {width} coordinates on its last axis, got shape {tuple(x.shape)}")
        return x

    def _mixed(self, x: Tensor, *, reverse: bool) -> Tensor:
        """H x / sqrt d, or the two windows one after the other (in the other order for the transpose)."""
        if is_power_of_two(self.size):
            return hadamard_transform(x)
        window = next_power_of_two(self.size) // 2
        for first in (False, True) if reverse else (True, False):
            if first:
                x = torch.cat([hadamard_transform(x[..., :window]), x[..., window:]], -1)
            else:
                x = torch.cat([x[..., :-window], hadamard_transform(x[..., -window:])], -1)
        return x

    def forward(self, x: Any) -> Float[Tensor, "... size"]:
        """The images of vectors (..., dim)."""
        x = self._checked(x, self.dim)
        if self.size != self.dim:
            x = torch.nn.functional.pad(x, (0, self.size - self.dim))
        for signs in self.signs:
            x = self._mixed(x * signs, reverse=False)
        return x

    def inverse(self, y: Any) -> Float[Tensor, "... dim"]:
        """The transpose applied to vectors (..., size): undoes `forward`, and is zero on what padding added."""
        y = self._checked(y, self.size)
        for signs in self.signs.flip(0):
            y = self._mixed(y, reverse=True) * signs
        return y[..., : self.dim]

    def matrix(self, dtype: torch.dtype = torch.float64) -> Float[Tensor, "size dim"]:
        """The rotation as a matrix M, forward(x) = M x; dim x size memory."""
        return self(torch.eye(self.dim, dtype=dtype, device=self.signs.device)).mT


def _vector(u: Any) -> Tensor:
    u = as_tensor(u, "u")
    if u.ndim != 1:
        raise ValueError(f"u must be one vector (d,), got shape {tuple(u.shape)}")
    require_finite(u, "u")
    if not bool((u != 0).any()):
        raise ValueError("u is zero: every rotation leaves it where it is, so nothing can be learned from its images")
    return u


def hadamard_images(u: Any, count: int, *, blocks: int = 2, generator: torch.Generator | None = None) -> Float[Tensor, "count d"]:
    """The images of one vector u (d,) under `count` independent Hadamard rotations: what the diagnostics look at.

    d must be a power of two. count d log d time for each block, count d memory. Raises ValueError for u = 0.
    """
    u = _vector(u)
    _whole(count, "count")
    _whole(blocks, "blocks")
    source = generator_or_default(generator, u.device)
    y = u.expand(count, -1)
    for _ in range(blocks):
        y = hadamard_transform(y * random_signs((count, u.shape[0]), source))
    return y


def haar_images(u: Any, count: int, *, generator: torch.Generator | None = None) -> Float[Tensor, "count d"]:
    """The images of one vector u (d,) under `count` independent Haar rotations: |u| times uniform points of the sphere."""
    u = _vector(u)
    source = generator_or_default(generator, u.device)
    z = torch.randn(_whole(count, "count"), u.shape[0], generator=source, dtype=torch.float64, device=u.device)
    z = z / torch.linalg.vector_norm(z, dim=-1, keepdim=True)
    return (z * torch.linalg.vector_norm(u.double())).to(u.dtype)


__all__ = ["HadamardRotation", "Padding", "haar_images", "haar_rotation", "haar_rotations", "hadamard_images", "random_signs"]
