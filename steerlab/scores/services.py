"""What a plan needs to know of the services that score texts, without their clients."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

PERSPECTIVE = "https://commentanalyzer.googleapis.com"
PERSPECTIVE_VERSION = "v1alpha1"  # of the API; its models have none
KEYS = {"perspective": "PERSPECTIVE_API_KEY", "moderation": "MODERATION_API_KEY"}  # environment variables


def version(service: str, settings: Mapping[str, Any]) -> str:
    """What stands for a version in tables and in the cache: the API's, or the model's, with the host.

    settings: of the service, as the configuration has them. Perspective's own host goes without saying.
    """
    if service == "moderation":
        return f"{settings['model']}@{urlsplit(settings['base_url']).netloc}"
    address = settings["address"].rstrip("/")
    return PERSPECTIVE_VERSION if address == PERSPECTIVE else f"{PERSPECTIVE_VERSION}@{urlsplit(address).netloc}"
