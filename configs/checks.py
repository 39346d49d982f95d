"""Bounds of single settings; every message names the flag, the allowed range and what was given."""


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
