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
    a, b = torch.tensor(first.matrix).double(), torch.tensor(first.offset).double()
    c, d = torch.tensor(second.matrix).double(), torch.tensor(second.offset).double()
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
    matrix = torch.tensor(columns, dtype=torch.float64).T
    goal = torch.tensor(target.coefficients, dtype=torch.float64)
    solution = torch.linalg.pinv(matrix) @ goal
    if (matrix @ solution - goal).norm() > 1e-9 * max(1.0, float(goal.norm())):
        raise InputError(
            f"Generator {target.name!r} is not a combination of the measured ones ({', '.join(g.name for g in basis)}); "
            "measure again with it among `generators`."
        )
    return solution
