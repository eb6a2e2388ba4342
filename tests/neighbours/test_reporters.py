"""Beside what reports errors with the local variables of their frames: none of it shows the client secret.

Each reporter runs in a process of its own, with its defaults, and prints what it would have sent or shown.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SECRET = "the-s3cret-of-a-key"

# Nobody answers at the URL, and a read timeout is not retried. The function whose call fails holds no secret itself.
FAILING = """
import os
import socket
import requests
from requests_mentionme import MentionMeAuth

silent = socket.create_server(("127.0.0.1", 0))
url = "http://127.0.0.1:" + str(silent.getsockname()[1])
auth = MentionMeAuth("an-id", os.environ["SECRET"], environment=url, timeout=(5, 0.1))

def with_auth():
    requests.get(url + "/api/merchant/v2/customers", auth=auth)

def without_auth():
    requests.post(url, json={"client_secret": os.environ["SECRET"]}, timeout=(5, 0.1))
"""
PRINT = """
import json
print(json.dumps([report(with_auth), report(without_auth)]))
"""
SENTRY = """
import sentry_sdk

events = []

class InMemory(sentry_sdk.transport.Transport):
    def capture_envelope(self, envelope):
        events.append(envelope.serialize().decode())

sentry_sdk.init(dsn="https://key@127.0.0.1/1", transport=InMemory)

def report(call):
    events.clear()
    try:
        call()
    except requests.RequestException:
        sentry_sdk.capture_exception()
    return "".join(events)
"""
RICH = """
import io
from rich.console import Console

def report(call):
    console = Console(file=io.StringIO(), width=1000)
    try:
        call()
    except requests.RequestException:
        console.print_exception(show_locals=True, max_frames=0)
    return console.file.getvalue()
"""
LOGURU = """
import io
from loguru import logger

def report(call):
    file = io.StringIO()
    logger.remove()
    logger.add(file, diagnose=True, backtrace=True)
    logger.catch(call)()
    return file.getvalue()
"""
DJANGO = """
import logging
import sys
import django
from django.conf import settings
from django.test import RequestFactory
from django.utils.log import AdminEmailHandler
from django.views.debug import technical_500_response

settings.configure(
    DEBUG=True,
    ALLOWED_HOSTS=["*"],
    ADMINS=[("Ada", "ada@example.com")],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of Django's own",
)
django.setup()
urlpatterns = []
request = RequestFactory().get("/")
"""
DJANGO_PAGE = f"""{DJANGO}
def report(call):
    try:
        call()
    except requests.RequestException:
        return technical_500_response(request, *sys.exc_info()).content.decode()
"""
DJANGO_MAIL = f"""{DJANGO}
class Handler(AdminEmailHandler):
    def send_mail(self, subject, message, *args, html_message, **kwargs):
        self.sent = message + html_message

def report(call):
    handler = Handler(include_html=True)
    try:
        call()
    except requests.RequestException:
        record = logging.makeLogRecord({{"msg": "failed", "exc_info": sys.exc_info(), "request": request}})
        handler.emit(record)
    return handler.sent
"""
OPENTELEMETRY = """
from opentelemetry import trace
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
RequestsInstrumentor().instrument(tracer_provider=provider)

def without_auth():  # a body is not recorded, but a URL is
    requests.get(url, params={"client_secret": os.environ["SECRET"]}, timeout=(5, 0.1))

def report(call):
    exporter.clear()
    with provider.get_tracer("tests").start_as_current_span("around"):
        try:
            call()
        except requests.RequestException as error:
            trace.get_current_span().record_exception(error)
    return "".join(span.to_json() for span in exporter.get_finished_spans())
"""
REPORTERS = {
    "sentry": ("sentry_sdk", SENTRY),
    "rich": ("rich", RICH),
    "loguru": ("loguru", LOGURU),
    "django page": ("django", DJANGO_PAGE),
    "django mail": ("django", DJANGO_MAIL),
    "opentelemetry": ("opentelemetry.instrumentation.requests", OPENTELEMETRY),
}


def run(*arguments: str) -> str:
    """Return what Python prints."""
    command = [sys.executable, "-W", "error", *arguments]
    environment = {**os.environ, "SECRET": SECRET}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert ended.stdout, ended.stderr
    return ended.stdout


@pytest.mark.parametrize(("library", "script"), REPORTERS.values(), ids=REPORTERS)
def test_what_is_reported_does_not_hold_the_secret(library: str, script: str) -> None:
    """The same report of a plain `requests.post` does: that is the control."""
    pytest.importorskip(library, reason=f"{library} is not installed")
    with_auth, without_auth = json.loads(run("-c", FAILING + script + PRINT).splitlines()[-1])
    assert "ReadTimeout" in with_auth
    assert SECRET not in with_auth
    assert SECRET in without_auth


def test_pytest_with_showlocals_does_not_print_the_secret(tmp_path: Path) -> None:
    """As above, with pytest itself as the reporter."""
    file = tmp_path / "test_failing.py"
    printed = []
    for call in ("with_auth", "without_auth"):
        file.write_text(f"{FAILING}\ndef test_it():\n    {call}()\n")
        printed.append(run("-m", "pytest", "-c", os.devnull, "-p", "no:cacheprovider", "--showlocals", str(file)))
    assert "ReadTimeout" in printed[0]
    assert SECRET not in printed[0]
    assert SECRET in printed[1]
