"""Plain HTTP clients for the tests of the sandbox. They use nothing of the package that the sandbox stands in for."""

import http.client
import json
import socket
from contextlib import ExitStack, closing
from types import SimpleNamespace

import pytest

from requests_mentionme.sandbox import Sandbox

JSON = {"Content-Type": "application/json"}
CREDENTIALS = {"client_id": "sandbox-id", "client_secret": "sandbox-secret", "grant_type": "client_credentials"}


class Client:
    def __init__(self, sandbox):
        self.sandbox = sandbox
        self.address = ("127.0.0.1", int(sandbox.url.rpartition(":")[2]))
        self.connection = http.client.HTTPConnection(*self.address, timeout=10)

    def ask(self, method, path, body=None, headers=JSON):
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        try:
            self.connection.request(method, path, content, headers)
            response = self.connection.getresponse()
            answer = SimpleNamespace(status=response.status, headers=response.headers, body=response.read())
        except (OSError, http.client.HTTPException):
            self.connection.close()
            raise
        is_json = answer.body and answer.headers["Content-Type"] == "application/json"
        answer.json = json.loads(answer.body) if is_json else None
        answer.told = (answer.status, answer.json)
        answer.limits = tuple(answer.headers[f"X-RateLimit-{name}"] for name in ("Limit", "Remaining", "Reset"))
        return answer

    def ask_for_token(self, headers=JSON, **changes):
        return self.ask("POST", "/api/oauth/token", CREDENTIALS | changes, headers)

    def new_token(self, **changes):
        return self.ask_for_token(**changes).json["access_token"]

    def call(self, token, method="GET", path="coupons/validate/SAMPLE", body=None):
        whole = path if path.startswith("/") else f"/api/merchant/v2/{path}"
        return self.ask(method, whole, body, {"Authorization": f"Bearer {token}", **JSON})

    def exchange(self, data):
        """Send bytes on a connection of their own, and return all that comes back until its end."""
        with socket.create_connection(self.address, timeout=10) as connection:
            connection.sendall(data)
            return b"".join(iter(lambda: connection.recv(65_536), b""))


@pytest.fixture
def serve():
    """Starts a sandbox with the given options, and returns a client of it. `sandbox=` takes one that runs already."""
    with ExitStack() as stack:

        def make(sandbox=None, **options):
            client = Client(sandbox or stack.enter_context(Sandbox(**options)))
            stack.enter_context(closing(client.connection))
            return client

        yield make


@pytest.fixture
def client(serve):
    return serve()
