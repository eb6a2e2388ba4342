"""Token stores that tell what was done with them, fail, or lie in a file."""


class Failing(dict):
    """A store that tells in `calls` what was done with it. Its `methods`, of `read`, `write` and `remove`, raise."""

    def __init__(self, error=None, *methods):
        super().__init__()
        self.error = error
        self.methods = methods
        self.calls = []

    def __getitem__(self, key):
        self.note("read")
        return super().__getitem__(key)

    def __setitem__(self, key, value):
        self.note("write")
        super().__setitem__(key, value)

    def __delitem__(self, key):
        self.note("remove")
        super().__delitem__(key)

    def note(self, call):
        self.calls.append(call)
        if call in self.methods:
            raise self.error


class File:
    """A store in a file, which can be pickled, and has room for one token."""

    def __init__(self, path):
        self.path = path

    def __getitem__(self, key):
        if not self.path.exists():
            raise KeyError(key)
        return self.path.read_text()

    def __setitem__(self, key, value):
        self.path.write_text(value)

    def __delitem__(self, key):
        self.path.unlink()
