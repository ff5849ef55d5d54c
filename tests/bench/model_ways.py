"""The ways to ask one model for the same text: our server directly, the same through the mesh, and vLLM's own server.

Rates are h2load's, which takes far less of the processor than what it loads. It
knows neither gRPC's errors nor tokens: the engine's own counters say how many
texts were written to their end, and of how many tokens. For first tokens, this
process reads all the texts itself, of all ways alike (model_readers.py).
"""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import urllib.request
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gateway.http2.reply import framed
from llmesh.api.model.v1 import model_pb2 as pb
from tests.bench.load import BadAnswersError, h2load
from tests.bench.model_readers import Ask, over_grpc, over_http

TOKENS = 32
PROMPT = "What does the mesh do with a call that its rules refuse?"
METHOD = "/llmesh.api.model.v1.ModelService/Generate"
REQUEST = pb.GenerateRequest(prompt=PROMPT, sampling=pb.Sampling(max_tokens=TOKENS)).SerializeToString()
TIMEOUT_S = 120.0
_TOOK = re.compile(r"finished in ([\d.]+)(us|ms|s),")
_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_COUNTER = r"^{}\{{.*\}} ([\d.e+]+)$"


class Way(Protocol):
    """One way."""

    @property
    def counters(self) -> str:
        """Where the engine behind it tells of its own."""
        ...

    def asking(self, streams: int) -> Sequence[str]:
        """What h2load is told to ask for so many texts at a time."""
        ...

    def reader(self) -> AbstractAsyncContextManager[Ask]:
        """Who reads texts, for the time to their first tokens."""
        ...


@dataclass(frozen=True, slots=True)
class OverGrpc:
    """Our server at an address, "unix:/path" or "host:port". body: a file for h2load."""

    address: str
    metadata: Sequence[tuple[str, str]]
    counters: str
    body: Path

    def asking(self, streams: int) -> Sequence[str]:
        """One connection with as many streams."""
        self.body.write_bytes(framed(REQUEST))
        headers = {"content-type": "application/grpc", "te": "trailers", **dict(self.metadata)}
        stated = [part for key, value in headers.items() for part in ("-H", f"{key}: {value}")]
        of_socket = self.address.startswith("unix:")
        place = ["-B", self.address, f"http://localhost{METHOD}"] if of_socket else [f"http://{self.address}{METHOD}"]
        return ("-c", "1", "-m", str(streams), "-d", str(self.body), *stated, *place)

    def reader(self) -> AbstractAsyncContextManager[Ask]:
        """By one connection."""
        return over_grpc(self.address, METHOD, REQUEST, self.metadata)


@dataclass(frozen=True, slots=True)
class OverHttp:
    """vLLM's own server at a port of this machine."""

    port: int
    model: str
    body: Path

    @property
    def counters(self) -> str:
        """At the same port."""
        return f"http://127.0.0.1:{self.port}/metrics"

    def asking(self, streams: int) -> Sequence[str]:
        """As many connections, for HTTP/1.1 has no streams."""
        self.body.write_bytes(self._request())
        url = f"http://127.0.0.1:{self.port}/v1/completions"
        return (
            "--h1",
            "-c",
            str(streams),
            "-m",
            "1",
            "-d",
            str(self.body),
            "-H",
            "content-type: application/json",
            url,
        )

    def reader(self) -> AbstractAsyncContextManager[Ask]:
        """By as many connections as texts at a time."""
        body = self._request()
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        return over_http(f"127.0.0.1:{self.port}", f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def _request(self) -> bytes:
        asked = {"model": self.model, "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 1, "stream": True}
        return json.dumps(asked).encode()


def tokens_per_s(way: Way, texts: int, *, streams: int) -> float:
    """How many tokens a second are written, so many texts at a time. Raises BadAnswersError if a text was not."""
    before = _counted(way)
    said = h2load("-n", str(texts), *way.asking(streams))
    tokens = _written(way, before, texts)
    took = _TOOK.search(said)
    if took is None:
        raise BadAnswersError(f"h2load says something else than expected:\n{said}")
    return tokens / (float(took.group(1)) * _UNITS_S[took.group(2)])


async def first_token_s(way: Way, texts: int, *, streams: int) -> float:
    """How long a first token takes where so many texts are written at a time, the median. Raises BadAnswersError."""
    before, left, took = _counted(way), iter(range(texts)), list[float]()

    async def work() -> None:
        for _ in left:
            took.append(await ask())

    async with way.reader() as ask, asyncio.TaskGroup() as workers:
        for _ in range(streams):
            workers.create_task(work())
    _written(way, before, texts)
    return statistics.median(took)


def _written(way: Way, before: tuple[float, float], texts: int) -> float:
    """The tokens of so many texts that were written since then. Raises BadAnswersError if it was another number."""
    ended, tokens = (after - first for after, first in zip(_counted(way), before, strict=True))
    if ended != texts:
        raise BadAnswersError(f"of {texts} texts, {ended:g} were written to their end")
    return tokens


def _counted(way: Way) -> tuple[float, float]:
    """Texts that the engine has written to their end so far, and tokens."""
    with urllib.request.urlopen(way.counters, timeout=TIMEOUT_S) as answer:  # noqa: S310 of ours
        told = answer.read().decode()
    texts, tokens = (
        sum(map(float, re.findall(_COUNTER.format(name), told, re.MULTILINE)))
        for name in ("vllm:request_success_total", "vllm:generation_tokens_total")
    )
    return texts, tokens
