"""The address of the model server's figures, while the server that it replaces still has it."""

from __future__ import annotations

import asyncio
import socket
import urllib.request
from typing import cast

from model_server.metrics import Metrics
from model_server.models import Models
from tests.eventually import eventually


async def test_a_server_that_replaces_another_tells_its_figures_once_that_has_left() -> None:
    with socket.create_server(("127.0.0.1", 0)) as before:
        address = "{}:{}".format(*before.getsockname())
        with Metrics(cast("Models", ()), address):
            before.close()

            def told() -> str:
                with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
                    return answer.read().decode()

            async def is_told() -> str:
                try:
                    return await asyncio.to_thread(told)
                except OSError as err:
                    raise AssertionError from err

            assert "llmesh_model_ready" in await eventually(is_told)
