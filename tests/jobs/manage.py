"""A Django project in one file, with one app: `shop`. Its management command calls the API.

export MENTIONME_CLIENT_ID=... MENTIONME_CLIENT_SECRET=... MENTIONME_ENVIRONMENT=demo
python manage.py lapse_customers ada@example.com grace@example.com
"""

import sys

from django.conf import settings
from django.core.management import execute_from_command_line

if __name__ == "__main__":
    settings.configure(INSTALLED_APPS=["shop"])
    execute_from_command_line(sys.argv)
