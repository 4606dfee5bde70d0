"""What a plan needs to know of the services that score texts, without their clients."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

PERSPECTIVE = "https://commentanalyzer.googleapis.com"
PERSPECTIVE_VERSION = "v1alpha1"  # of the API; its models have none
KEYS = {  # environment variables
    "perspective": "PERSPECTIVE_API_KEY",
    "moderation": "MODERATION_API_KEY",
    "chat_completions": "CHAT_COMPLETIONS_API_KEY",
}


def version(service: str, settings: Mapping[str, Any]) -> str:
    """What stands for a version in tables and in the cache: the API's, or the model's, with the host.

    settings: of the service, as the configuration has them. Perspective's own host goes without saying.
    """
    if service in ("moderation", "chat_completions"):
        return f"{settings['model']}@{_place(settings['base_url'])}"
    place = _place(settings["address"])
    return PERSPECTIVE_VERSION if place == _place(PERSPECTIVE) else f"{PERSPECTIVE_VERSION}@{place}"


def _place(address: str) -> str:
    """Host, port and path of an address; a user and a password, which no address should have, are not in it."""
    parts = urlsplit(address)
    return f"{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
