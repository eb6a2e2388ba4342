"""Token stores that do what a good one does not."""


class Failing(dict[str, str]):
    """A store some of whose methods raise."""

    def __init__(self, error: BaseException, *methods: str) -> None:
        super().__init__()
        self.error, self.methods = error, methods

    def __getitem__(self, key: str) -> str:
        """Read, or not."""
        self._may("read")
        return super().__getitem__(key)

    def __setitem__(self, key: str, value: str) -> None:
        """Write, or not."""
        self._may("write")
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        """Remove, or not."""
        self._may("remove")
        super().__delitem__(key)

    def _may(self, method: str) -> None:
        if method in self.methods:
            raise self.error
