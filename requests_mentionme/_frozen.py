"""A base for values that never change after they were made. Pure: it does no I/O, and knows no clock and no lock."""

from typing import NoReturn


class Frozen:
    """A value none of whose attributes can be set or deleted. Its constructor fills them in by `_fill`."""

    __slots__ = ()

    def _fill(self, **attributes: object) -> None:
        for name, value in attributes.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} can't be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} can't be deleted")
