"""A stand-in for Mention Me on a loopback socket, for demos and tests.

It imitates the token endpoint and the Merchant API as they are documented, keeps what it saw, and plays faults on
request. It needs only the standard library, listens on 127.0.0.1 alone, and shares no code with the client side except
the `Environment`, so that each side checks the other.
"""

from requests_mentionme.sandbox._sandbox import Sandbox, SeenRequest

__all__ = ["Sandbox", "SeenRequest"]

# Tracebacks, pickles and help() name the module from which users import.
Sandbox.__module__ = __name__
SeenRequest.__module__ = __name__
