"""The requests that get no token since they go elsewhere: one warning for each origin."""

import logging
import threading

from requests_mentionme._environment import Environment, displayed_origin, named_environment_of
from requests_mentionme._fork import tell_after_fork

_logger = logging.getLogger("requests_mentionme")
_MOST_ORIGINS_NAMED = 100


class ForeignOrigins:
    """Warns once of each origin that gets no token. What it remembers is bounded."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._named: set[str] = set()
        # Guards the set. It is reentrant, since a signal handler may send a request while its own thread holds it.
        self._lock = threading.RLock()
        tell_after_fork(self)

    def start_anew_after_fork(self) -> None:
        """Make a new lock."""
        self._lock = threading.RLock()

    def warn_once(self, url: str | None) -> None:
        """Log a warning, unless the origin of *url* was named before."""
        origin = displayed_origin(url)
        with self._lock:
            if origin in self._named or len(self._named) >= _MOST_ORIGINS_NAMED:
                return
            self._named.add(origin)
        covered = " and ".join(sorted(self._environment.origins))
        other = named_environment_of(url)
        hint = "" if other is None else f" Was environment={other.name!r} meant?"
        _logger.warning(
            "No token for %s: the environment %s covers %s alone.%s", origin, self._environment.name, covered, hint
        )
