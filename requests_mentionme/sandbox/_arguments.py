"""The checks of what callers pass to the sandbox."""

import math
from collections.abc import Mapping
from typing import NamedTuple, cast


class _Rule(NamedTuple):
    """Which types an argument may have, and which values; for text and bytes the bounds are those of the length."""

    types: tuple[type, ...]
    least: float
    most: float = math.inf


_RULES: Mapping[str, _Rule] = {
    "client_id": _Rule((str,), 1),
    "client_secret": _Rule((str,), 1),
    "env": _Rule((str,), 1),
    "scope": _Rule((str,), 0),
    "merchant_id": _Rule((int,), 0),
    "rate_limit": _Rule((int,), 1),
    "rate_window": _Rule((int, float), 0.001, 1e9),
    "port": _Rule((int,), 0, 65_535),
    "lifetime": _Rule((int, float), 0.001, 1e9),
    "times": _Rule((int,), 1),
    "status": _Rule((int,), 200, 599),
    "header": _Rule((str,), 0),
    "body": _Rule((str, bytes), 0),
    "delay": _Rule((int, float), 0, 1e6),  # On some systems, threads can't wait much longer.
}


def check(**arguments: object) -> None:
    """Check each argument by the rule of its name. No message shows a value, because it may be a secret."""
    for name, value in arguments.items():
        rule = _RULES[name]
        # To Python a bool is an int, but True is hardly ever meant as a number.
        if isinstance(value, bool) or not isinstance(value, rule.types):
            expected = " or ".join(kind.__name__ for kind in rule.types)
            raise TypeError(f"{name} must be {expected}, not {type(value).__name__}")
        size = value if isinstance(value, (int, float)) else len(cast("str | bytes", value))
        # A NaN is neither below nor above anything, so it is refused here too.
        if not rule.least <= size <= rule.most:
            what = f"the length of {name}" if isinstance(value, (str, bytes)) else name
            bounds = f"{rule.least} or more" if rule.most == math.inf else f"from {rule.least} to {rule.most}"
            raise ValueError(f"{what} must be {bounds}")
