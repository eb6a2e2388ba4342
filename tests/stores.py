"""Token stores that tell what was done with them, fail, or lie in a file."""

from pathlib import Path


class Recording(dict[str, str]):
    """A store that tells in `calls` what was done with it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __getitem__(self, key: str) -> str:
        self.note("read")
        return super().__getitem__(key)

    def __setitem__(self, key: str, value: str) -> None:
        self.note("write")
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self.note("remove")
        super().__delitem__(key)

    def note(self, call: str) -> None:
        """Keep what is being done."""
        self.calls.append(call)


class Failing(Recording):
    """A store some of whose methods raise: any of `read`, `write` and `remove`."""

    def __init__(self, error: BaseException, *methods: str) -> None:
        super().__init__()
        self.error = error
        self.methods = methods

    def note(self, call: str) -> None:
        """Raise, if that is what this method does."""
        super().note(call)
        if call in self.methods:
            raise self.error


class File:
    """A store in a file, which can be pickled, and has room for one token."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __getitem__(self, key: str) -> str:
        if not self.path.exists():
            raise KeyError(key)
        return self.path.read_text(encoding="utf-8")

    def __setitem__(self, key: str, value: str) -> None:
        self.path.write_text(value, encoding="utf-8")

    def __delitem__(self, key: str) -> None:
        self.path.unlink()
