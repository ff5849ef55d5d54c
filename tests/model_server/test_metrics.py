"""The address of the model server's figures, while the server that it replaces still has it."""

from __future__ import annotations

import asyncio
import errno
import socket
import urllib.request
from threading import Thread
from typing import cast
from wsgiref.simple_server import WSGIServer

import pytest

from model_server import metrics
from model_server.metrics import Metrics
from model_server.models import Models
from tests.e2e.mesh import free_port
from tests.eventually import eventually


async def told(address: str) -> str:
    """The figures. Raises AssertionError while there is nobody who tells them."""

    def read() -> str:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
            return answer.read().decode()

    try:
        return await asyncio.to_thread(read)
    except OSError as err:
        raise AssertionError from err


async def test_a_server_that_replaces_another_tells_its_figures_once_that_has_left() -> None:
    with socket.create_server(("127.0.0.1", 0)) as before:
        address = "{}:{}".format(*before.getsockname())
        with Metrics(cast("Models", ()), address):
            before.close()
            assert "llmesh_model_ready" in await eventually(lambda: told(address))


async def test_whatever_keeps_an_address_from_a_server_figures_are_told_once_it_is_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, failures = metrics.start_http_server, [errno.EADDRINUSE, errno.EMFILE, errno.EMFILE]

    def fail(port: int, host: str) -> tuple[WSGIServer, Thread]:
        if failures:
            raise OSError(failures.pop(0), "no")
        return real(port, host)

    monkeypatch.setattr(metrics, "start_http_server", fail)
    monkeypatch.setattr(metrics, "RETRY_S", 0.001)
    address = f"127.0.0.1:{free_port()}"
    with Metrics(cast("Models", ()), address):
        assert "llmesh_model_ready" in await eventually(lambda: told(address))
    assert [each.getMessage() for each in caplog.records].count("figures have no address") == 1
