"""What the check of a number has shown."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

NAMES = {
    "forward": "forward mode", "dual": "torch's dual numbers", "reverse": "backward passes", "differences": "central differences",
}  # fmt: skip


@dataclass(frozen=True)
class Verification:
    """What a check has shown.

    Args:
        mode: How the number was computed: `forward`, `dual` (forward, without stacking), `reverse` or `differences`.
        deviation: `‖p - d‖` relative to the larger of both, `p` the pushed tangent and `d` the differences.
        noise: Error of the differences, relative to them, as far as it was estimated.
        precision: Dtype in which the differences were taken.
        verified: Whether they agree as well as they can.
        note: What else there is to know.
    """

    mode: str
    deviation: float
    noise: float
    precision: str
    verified: bool
    note: str = ""

    def __str__(self) -> str:
        way = NAMES.get(self.mode, self.mode)
        if self.mode == "differences":
            said = "verified" if self.verified else "not verified"
            text = f"{said}: {way} of the function in {self.precision}, steady to {self.noise:.1g}"
        elif self.verified:
            text = f"verified: {way} and differences of the function in {self.precision} agree to {self.deviation:.1g}"
        else:
            text = f"not verified: {way} and differences of the function in {self.precision} are {self.deviation:.1g} apart"
        return f"{text}; {self.note}" if self.note else text

    def row(self) -> dict[str, Any]:
        """As flat columns for tables and JSON."""
        return {
            "verified": self.verified,
            "verified_mode": self.mode,
            "verified_deviation": self.deviation if math.isfinite(self.deviation) else None,
            "verified_precision": self.precision,
        }


def weakest(found: Sequence[Verification | None]) -> Verification | None:
    """What is known of a number that is made of several: the verification that says least; None where one has none."""
    known = [v for v in found if v is not None]
    if len(known) < len(found):
        return None
    return min(
        known, key=lambda v: (v.verified, -v.deviation if math.isfinite(v.deviation) else -math.inf), default=None
    )
