"""What the installed package shows to the outside: names, help, types, version, what it imports."""

import pydoc
import re
import subprocess
import sys
from importlib import metadata, resources
from pathlib import Path
from types import ModuleType

import requests_mentionme
from requests_mentionme import MentionMeAuth

PROMISED = ["DEMO", "PRODUCTION", "Environment", "InvalidClientError", "MentionMeAuth", "MentionMeAuthError"]
PROMISED += ["TokenEndpointError", "TokenResponseError"]
OPTIONS = ["environment", "session", "timeout", "refresh_margin", "store"]


def help_on(thing):
    return pydoc.plain(pydoc.render_doc(thing))


def test_the_public_names_are_exactly_the_promised_ones_each_with_words_and_types_of_its_own_and_the_version():
    """Each says that it is of the package and not of a private room, and type checkers read a test of it."""
    names = vars(requests_mentionme).items()
    public = {name for name, value in names if not name.startswith("_") and not isinstance(value, ModuleType)}
    assert requests_mentionme.__all__ == [*PROMISED, "__version__"]
    assert public == set(PROMISED)
    assert requests_mentionme.__version__ == metadata.version("requests-mentionme")
    assert resources.files(requests_mentionme).joinpath("py.typed").is_file()
    api = (Path(__file__).parent / "typing" / "api.py").read_text(encoding="utf-8")
    for name in PROMISED:
        promised = getattr(requests_mentionme, name)
        kind = promised if isinstance(promised, type) else type(promised)
        assert (kind.__module__, name in api) == ("requests_mentionme", True), name
        assert vars(kind)["__doc__"], name


def test_importing_the_package_loads_no_sandbox_and_only_the_first_token_loads_pyjwt():
    program = """import sys, requests_mentionme
print(*sys.modules)
sys.path.insert(0, sys.argv[1])
from in_memory import TokenEndpoint, auth_with
auth_with(TokenEndpoint()).access_token()
print("jwt" in sys.modules)"""
    command = [sys.executable, "-c", program, str(Path(__file__).parent)]
    loaded, used = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    looked_for = {"requests_mentionme", "jwt", "cryptography", "requests_mentionme.sandbox"}
    assert (looked_for & set(loaded.split()), used) == ({"requests_mentionme"}, "True")


def test_help_starts_with_an_example_lists_all_options_and_names_the_sandbox():
    assert re.search(r"auth ?= ?MentionMeAuth(\.from_env)?\(", help_on(MentionMeAuth).split("Args:")[0])
    for documented in (MentionMeAuth, MentionMeAuth.from_env, MentionMeAuth.from_provider):
        assert [option for option in OPTIONS if option not in help_on(documented)] == []
    # The sandbox is the one public submodule, which `__all__` does not list.
    assert "requests_mentionme.sandbox" in help_on(requests_mentionme).split("PACKAGE CONTENTS")[0]
