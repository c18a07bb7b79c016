"""The algebra of generators: their brackets, and one as a combination of others."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lee.errors import InputError
from lee.geometry.generators import BASIS, Action, AnyGenerator, Generator, get


def spatial(generator: AnyGenerator, what: str) -> Generator:
    """A generator that moves pixels and leaves their values alone, from its name or itself; the error says `what` needs one."""
    found = get(generator)
    if isinstance(found, Action) or not found.is_spatial:
        raise InputError(
            f"{what} is defined for spatial generators only (translations, rotation, …), not for {found.name!r}."
        )
    return found


def bracket(first: str | Generator, second: str | Generator) -> Generator:
    r"""The Lie bracket `[ξ, η] = (Dη) ξ - (Dξ) η` of two spatial generators.

    It is the commutator of their actions on images, :math:`X(Y \cdot z) - Y(X \cdot z) = [X, Y] \cdot z`.

    Args:
        first: `ξ`, spatial: a name or a generator.
        second: `η`, spatial.

    Raises:
        InputError: If one of them is photometric.

    Examples:
        >>> bracket("rotation", "translation_x").coefficients == get("translation_y").coefficients
        True
    """
    first, second = (spatial(g, "The bracket") for g in (first, second))
    a, c = (torch.tensor(g.matrix, dtype=torch.float64) for g in (first, second))
    b, d = (torch.tensor(g.offset, dtype=torch.float64) for g in (first, second))
    (xx, yx), (xy, yy) = (c @ a - a @ c).tolist()
    x, y = (c @ b - a @ d).tolist()
    return Generator(f"[{first.name}, {second.name}]", (x, y, xx, yx, xy, yy, 0.0, 0.0, 0.0), "t")


def coordinates(target: Generator, basis: Sequence[Generator | Action]) -> Tensor:
    """Coefficients `c` with `target = Σ c_k basis_k`, shape (K,), float64.

    Args:
        target: The generator to be expressed.
        basis: K generators; an action among them gets the coefficient 0.

    Raises:
        InputError: If `target` is not in the span of `basis`.
    """
    columns = [g.coefficients if isinstance(g, Generator) else (0.0,) * len(BASIS) for g in basis]
    matrix, sizes = _unit_sized(torch.tensor(columns, dtype=torch.float64).T)
    goal, size = _unit_sized(torch.tensor([target.coefficients], dtype=torch.float64).T)
    solution = torch.linalg.pinv(matrix) @ goal
    if (matrix @ solution - goal).norm() > 1e-9 * goal.norm():
        raise InputError(
            f"Generator {target.name!r} is not a combination of the measured ones ({', '.join(g.name for g in basis)}); "
            "measure again with it among `generators`."
        )
    return solution[:, 0] * (size / sizes)


def _unit_sized(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Columns divided by their largest entries, (D, K), and these, (K,), 1 for a column of zeros: size says nothing of span."""
    sizes = columns.abs().amax(0)
    sizes = torch.where(sizes > 0, sizes, 1)
    return columns / sizes, sizes
