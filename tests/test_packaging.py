"""What the installed package shows to the outside: names, types, version, what it imports."""

import subprocess
import sys
from importlib import metadata, resources
from types import ModuleType

import requests_mentionme
from requests_mentionme import _version

PROMISED = [
    "DEMO",
    "PRODUCTION",
    "Environment",
    "InvalidClientError",
    "MentionMeAuth",
    "MentionMeAuthError",
    "TokenEndpointError",
    "TokenResponseError",
]


def test_all_is_sorted_and_holds_exactly_the_promised_names():
    """`__all__` lists the names that users may rely on, constants first, and nothing else."""
    assert requests_mentionme.__all__ == PROMISED


def test_every_public_attribute_is_listed_in_all():
    """A name without an underscore is a submodule or is promised."""
    attributes = {
        name
        for name, value in vars(requests_mentionme).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }

    assert attributes == set(requests_mentionme.__all__)


def test_every_promised_name_says_what_it_is():
    """Classes have a docstring of their own."""
    promised = [getattr(requests_mentionme, name) for name in requests_mentionme.__all__]

    assert [item for item in promised if isinstance(item, type) and not vars(item)["__doc__"]] == []


def test_the_package_is_marked_as_typed():
    """The marker file of PEP 561 is installed with the package."""
    assert resources.files(requests_mentionme).joinpath("py.typed").is_file()


def test_the_metadata_has_the_version_of_the_package():
    """The installed distribution and the package agree on their version."""
    assert metadata.version("requests-mentionme") == _version.__version__


def test_importing_the_package_loads_neither_pyjwt_nor_the_sandbox():
    """What only some users need is not paid for by all."""
    program = "import sys, requests_mentionme; print(*sys.modules, sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()

    assert "requests_mentionme" in loaded
    assert "jwt" not in loaded
    assert "requests_mentionme.sandbox" not in loaded
