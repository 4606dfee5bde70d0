"""Fixtures of several files."""

from collections.abc import Iterator

import pytest

from tests.unit.web import Web


@pytest.fixture
def web() -> Iterator[Web]:
    """A web server without any file: what is put into it is served, also as a hub's."""
    served = Web()
    yield served
    served.close()
