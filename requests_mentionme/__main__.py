"""The command line: `python -m requests_mentionme`."""

import argparse
import sys
from collections.abc import Sequence

from requests_mentionme._demo import run_demo


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0 if it succeeded, 1 if not, 2 if it was called wrongly."""
    parser = argparse.ArgumentParser(prog="python -m requests_mentionme", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("demo", help="watch a session get a token, use it, renew it and survive a 401, in a sandbox")
    parser.parse_args(arguments)
    return 0 if run_demo() else 1


if __name__ == "__main__":
    sys.exit(main())
