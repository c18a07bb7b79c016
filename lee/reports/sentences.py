"""What the numbers of a report mean, in plain sentences made from them alone."""

import math
from typing import Any

from lee.charts.theme import RAISED

#: What the amounts of a motion are in everyday units: factor and words.
EVERYDAY = {
    "translation_x": (None, "the image moves by one pixel to the side"),
    "rotation": (math.pi / 180, "turns by one degree"),
    "scale": (0.01, "shrinks by 1 %"),
    "brightness": (0.01, "gets 1 % brighter"),
}
UNSURE = 45  # degrees in which 95 % of resampled directions lie, beyond which one says little
CHANCE = 0.05  # p-value, from which on nothing is called a difference
FEW = 30  # images, below which intervals are wide
MOTIONS = {
    "translation_x": "horizontal translation", "translation_y": "vertical translation", "rotation": "rotation",
    "scale": "scale", "squeeze": "stretching one axis against the other", "hyperbolic": "shearing along the diagonals",
}  # fmt: skip


def meaning(found: dict[str, Any]) -> list[str]:
    """Plain sentences about a report's numbers.

    Args:
        found: What :func:`lee.reports.measured` returns.
    """
    parts = (_verified, _size, _references, _direction, _layers, _flips, _discrete, _care)
    return [sentence for part in parts for sentence in part(found)]


def shown(value: float, digits: int = 2) -> str:
    """A number with some significant digits, without an exponent where that can be read.

    >>> shown(0.01234), shown(123.4), shown(1.2e-7), shown(0.0)
    ('0.012', '120', '1.2×10⁻⁷', '0')
    """
    if not value:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if -4 <= exponent < 6:
        return f"{round(value, digits - 1 - exponent):.{max(0, digits - 1 - exponent)}f}"
    mantissa = f"{value / 10**exponent:.{digits - 1}f}"
    return f"{mantissa}×10{str(exponent).translate(RAISED)}"


def _verified(found: dict[str, Any]) -> list[str]:
    said = found["errors"]["verification"]
    how = said.removeprefix("verified: ")
    if how != said:
        return [f"The derivative behind these numbers was checked on the first images: {how}."]
    return [f"The derivative behind these numbers was not verified ({said}): do not rely on them."]


def _size(found: dict[str, Any]) -> list[str]:
    rows, side = {row["motion"]: row for row in found["errors"]["rows"]}, found["about"]["size"]
    told = [
        f"by {shown(rows[name]['length'] * (2 / side if amount is None else amount))} when it {words}"
        for name, (amount, words) in EVERYDAY.items()
        if name in rows
    ]
    if not told:
        return []
    what, scale = "output", ""
    if found["about"]["output"] == "probabilities" and found["errors"]["classes"] > 1:
        what = "class probabilities"
        scale = " (From certainty of one class to certainty of another the length of the change would be 1.41.)"
    changes = ", ".join(told).replace("when it the", "when the", 1)
    return [
        f"To first order, the {what} change{'s' * (what == 'output')} {changes}: lengths of the change, root mean square over the "
        f"images.{scale}"
    ]  # fmt: skip


def _references(found: dict[str, Any]) -> list[str]:
    told = []
    for name, other in found["errors"]["references"].items():
        for motion in ("translation_x", "rotation"):
            ratio = other["ratios"].get(motion)
            if ratio is None or None in ratio:
                continue
            value, low, high, p = ratio
            clear = p < CHANCE  # of many images, interval and test may differ
            verdict = "not clearly different from"
            if clear and not low <= 1 <= high:
                verdict = "more than" if low > 1 else "less than"
            told.append(
                f"Under {MOTIONS[motion]} the squared change of its output is {shown(value)} times that of {name} on the same "
                f"images (95 % interval {shown(low)} to {shown(high)}): {verdict} it."
            )
    return told


def _direction(found: dict[str, Any]) -> list[str]:
    directions = found["errors"]["directions"]
    if len(directions) < 2:
        few = "Which affine motions the model respects most and least, these images don't tell: there are too few of them."
        return [few]
    least, most = directions[-1], directions[0]

    def words(direction: dict[str, Any]) -> str:
        name, share = max(direction["shares"].items(), key=lambda item: item[1])
        unsure = "" if direction["spread"] < UNSURE else " (these images don't determine it well)"
        return f"{100 * share:.0f} % {MOTIONS[name]}{unsure}"

    times, factor = "By how much the error differs between the two, these images don't tell", found["errors"]["factor"]
    if factor and None not in factor:
        value, low, high, p = map(float, factor)
        if low > 1 and p < CHANCE:
            span = f"{shown(value)}, 95 % interval {shown(low)} to {shown(high)}"
            times = (
                f"Between the two the error differs by a factor of {span}, on images that didn't choose these motions"
            )
    return [
        f"Of all affine motions that move the pixels equally far, the one that the model respects most is {words(most)}, and the "
        f"one that it respects least is {words(least)}. {times}."
    ]  # fmt: skip


def _layers(found: dict[str, Any]) -> list[str]:
    told = []
    for part in found["layers"]:
        largest = sorted(part["families"].items(), key=lambda item: -(item[1] or 0))[:2]
        shares = " and ".join(f"{name} ({100 * share:.0f} %)" for name, share in largest if share)
        if shares:
            told.append(
                f"The error along {MOTIONS[part['motion']]} arises mostly in layers of the kind {shares}: signed shares of "
                f"{part['n']} images, which may exceed 100 % where other layers cancel."
            )
    return told


def _flips(found: dict[str, Any]) -> list[str]:
    told = []
    for curve in found["curves"]:
        if curve["motion"] != "rotation" or curve["flips"] is None:
            continue
        ends = [math.degrees(abs(v)) for v in curve["flips"] if v is not None]
        reach = math.degrees(curve["t"][-1])
        guess = [math.degrees(abs(v)) for v in curve["predicted_flips"] or () if v is not None]
        now = f"stays the same up to {shown(reach)}° of rotation, the largest angle that was tried"
        if ends:
            now = f"first changes after {shown(min(ends))}° of rotation"
        by = f"{shown(min(guess))}°" if guess else "no change"
        told.append(f"On the {curve['kind']} image the top class {now}; the derivative alone predicts {by}.")
    return told


def _discrete(found: dict[str, Any]) -> list[str]:
    told, rows, accuracy = [], found["discrete"]["rows"], found["discrete"]["accuracy"]
    if "consistency" in rows:
        row = rows["consistency"]
        shifts = f"up to {row['shift']} whole pixel{'s' * (row['shift'] > 1)}"
        told.append(
            f"Two random shifts by {shifts} leave the top class the same in {100 * row['value']:.0f} % of the cases."
        )
    if accuracy is not None:
        told.append(
            f"{100 * accuracy['value']:.0f} % of the {accuracy['n']} images are classified as their labels say."
        )
    return told


def _care(found: dict[str, Any]) -> list[str]:
    n = found["about"]["n"]
    if n >= FEW:
        return []
    return [
        f"Only {n} {'images were' if n != 1 else 'image was'} measured. A few images can dominate the mean: measure {FEW} or "
        "more (--n) before you draw conclusions."
    ]  # fmt: skip
