"""The command line: `requests-mentionme`, or `python -m requests_mentionme`.

What a command is asked for goes to stdout, and nothing else; where it fails, one line on stderr says why. Credentials
come from environment variables alone, since the arguments of a command can be read by every user of the machine.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

from requests_mentionme._cli import leave_stdout, sandbox, token, whoami
from requests_mentionme._demo import run_demo
from requests_mentionme._version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0 if it succeeded, 1 if not, 2 if a variable or value is wrong, 130 if interrupted."""
    logging.getLogger("requests_mentionme").addHandler(logging.NullHandler())  # or warnings would go to stderr too
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # who reads has read enough
        return 1
    except (OSError, ValueError) as error:  # what `requests` raises is an OSError, and may be a ValueError too
        print("requests-mentionme:", *str(error).split(), file=sys.stderr)
        return 1 if isinstance(error, OSError) else 2


def _run(arguments: Sequence[str] | None) -> int:
    try:
        options = _parser().parse_args(arguments)
        return int(options.run(options))
    finally:
        try:
            print(end="", flush=True)
        except OSError:
            leave_stdout()  # or Python would try, fail and complain once more as it exits
            raise


def _parser() -> argparse.ArgumentParser:
    about = "Credentials: MENTIONME_CLIENT_ID, MENTIONME_CLIENT_SECRET, MENTIONME_ENVIRONMENT (a name or a base URL)."
    parser = argparse.ArgumentParser(prog="requests-mentionme", description=about, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, run: Callable[[argparse.Namespace], int], summary: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        command.set_defaults(run=run)
        return command

    add("demo", _demo, "watch a session get a token, use it, renew it and survive a 401, in a sandbox")
    about_token = add("whoami", whoami, "tell the environment, merchant, scopes and expiry of an access token")
    about_token.add_argument("--json", action="store_true", help="print a JSON object; what is unknown is null")
    for command in (about_token, add("token", token, "print an access token")):
        command.add_argument("--environment", metavar="NAME_OR_URL", help="in place of MENTIONME_ENVIRONMENT")
    served = add("sandbox", sandbox, "play Mention Me on this machine until interrupted; print the variables for it")
    served.add_argument("--port", type=int, default=0, help="by default a free one")
    served.add_argument("--lifetime", type=float, default=3600, help="seconds that a token lives, by default an hour")
    return parser


def _demo(_: argparse.Namespace) -> int:
    return 0 if run_demo() else 1


if __name__ == "__main__":
    sys.exit(main())
