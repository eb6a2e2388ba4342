"""Lets `python -m requests_mentionme` run the command line."""

import sys

from requests_mentionme._cli import main

sys.exit(main())
