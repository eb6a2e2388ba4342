"""A management command. It makes its auth when it runs, so that other commands do without the variables."""

import requests
from django.core.management import BaseCommand, CommandError

from requests_mentionme import MentionMeAuth

LARGEST_BATCH = 100  # identifiers that the API takes in one request


class Command(BaseCommand):
    """Tells Mention Me which customers have lapsed."""

    help = "Tell Mention Me that customers have lapsed."

    def add_arguments(self, parser):
        """Take the addresses."""
        parser.add_argument("emails", metavar="EMAIL", nargs="+")

    def handle(self, *_args, **options):
        """Send the addresses, and end with one line on stderr where that fails."""
        emails = options["emails"]
        try:
            auth = MentionMeAuth.from_env()
            accepted = sum(lapse(auth, emails[at : at + LARGEST_BATCH]) for at in range(0, len(emails), LARGEST_BATCH))
        except (ValueError, requests.RequestException) as error:  # a variable is missing; the request failed
            raise CommandError(error) from error
        self.stdout.write(f"{accepted} of {len(emails)} accepted")


def lapse(auth, emails):
    """Send one batch, and return how many of the customers are known."""
    identifiers = [{"type": "email", "value": email} for email in emails]
    url = f"{auth.environment.base_url}/api/merchant/v2/customers/lapse"
    response = requests.post(url, json={"identifiers": identifiers}, auth=auth, timeout=30)
    response.raise_for_status()
    return len(response.json()["accepted"])
