"""What the options of the auth may be: they are checked when it is made, not when it is used."""

import os
from typing import cast

from requests_mentionme._environment import PRODUCTION, Environment, resolve_environment

_SHORTEST_TIMEOUT = 0.001  # seconds
_MOST_SECONDS = 86_400  # a day


def environment_from_variable() -> Environment:
    """Return the environment that `MENTIONME_ENVIRONMENT` names; production where it is not set or empty."""
    try:
        return resolve_environment(os.environ.get("MENTIONME_ENVIRONMENT") or PRODUCTION)
    except ValueError as error:
        raise ValueError(
            f"the environment variable MENTIONME_ENVIRONMENT is of no use: {error}. "
            "Set it, for example: export MENTIONME_ENVIRONMENT=demo"
        ) from None


def timeout_pair(timeout: object) -> tuple[float, float]:
    """Return the timeouts for the connection and for each read."""
    if isinstance(timeout, int | float | None):
        both = seconds("timeout", timeout, least=_SHORTEST_TIMEOUT)
        return both, both
    if not isinstance(timeout, tuple) or len(cast("tuple[object, ...]", timeout)) != 2:
        raise TypeError("timeout must be a number of seconds, or a pair of them as a tuple: (connect, read)")
    connect, read = cast("tuple[object, object]", timeout)
    return seconds("timeout", connect, least=_SHORTEST_TIMEOUT), seconds("timeout", read, least=_SHORTEST_TIMEOUT)


def seconds(name: str, value: object, *, least: float) -> float:
    """Return a number of seconds, checked.

    None is a ValueError, since it is no mistake of type: to `requests` it means to wait for ever.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise TypeError(f"{name} must be a number of seconds")
    if value is None or not least <= value <= _MOST_SECONDS:
        raise ValueError(f"{name} must be {least:g} to {_MOST_SECONDS} seconds")
    return float(value)
