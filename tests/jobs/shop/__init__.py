"""An app of Django whose command calls the API."""
