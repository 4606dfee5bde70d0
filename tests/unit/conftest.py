"""Fixtures of several files."""

import socket
from collections.abc import Iterator

import pytest

from tests.unit.web import Web


@pytest.fixture
def web() -> Iterator[Web]:
    """A web server without any file: what is put into it is served, also as a hub's."""
    served = Web()
    yield served
    served.close()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*_: object) -> None:
        raise OSError("the network is cut")

    monkeypatch.setattr(socket.socket, "connect", cut)
    monkeypatch.setattr(socket, "getaddrinfo", cut)
