"""Bounds of single settings; every message names the flag, the allowed range and what was given."""

from collections.abc import Sequence


def require_range(flag: str, value: float, low: float, high: float) -> None:
    """Raise unless low <= value <= high.

    Args:
        flag: The flag as the user types it, without dashes: `policy.mask-ratio`.
        value: What was given.
        low: Smallest allowed value.
        high: Largest allowed value.

    Raises:
        ValueError: If the value lies outside the range or is not a number.
    """
    if not low <= value <= high:
        raise ValueError(f"--{flag} must lie in [{low:g}, {high:g}], got {value:g}")


def require_probabilities(flag: str, values: Sequence[float]) -> None:
    """Raise unless the values can be probabilities of cases that exclude one another.

    Args:
        flag: As for `require_range`.
        values: One per case; what is left to 1 belongs to a case that is not named.

    Raises:
        ValueError: If one lies outside [0, 1], or their sum does.
    """
    for value in values:
        require_range(flag, value, 0, 1)
    if sum(values) > 1:
        raise ValueError(f"--{flag}: the probabilities add up to {sum(values):g}, at most 1 is possible")
