"""Load by h2load, which takes far less of the processor than what it loads.

h2load calls every HTTP 200 a success, a gRPC error too. So each load is told
how long a good answer is: an error has no body.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.bench.backend import ANSWER, PATH, REQUEST, MissingPackageError

TIMEOUT_S = 120
_REQUESTS = re.compile(r"requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout")
_DATA = re.compile(r"\((\d+)\) data$", re.MULTILINE)
_MICROSECONDS = 2


class BadAnswersError(Exception):
    """Not every call was answered, or not with OK."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How calls come: over so many connections, so many on each at a time."""

    connections: int
    streams: int


BUSY = Shape(8, 8)
ALONE = Shape(1, 1)


def load(port: int, calls: int, *, shape: Shape, headers: Mapping[str, str]) -> float:
    """Make calls; the median of their latencies in microseconds. Raises BadAnswersError, MissingPackageError."""
    with tempfile.TemporaryDirectory(prefix="h2load") as name:
        body, log = Path(name) / "body", Path(name) / "log"
        body.write_bytes(REQUEST)
        argv = ["-n", str(calls), "-c", str(shape.connections), "-m", str(shape.streams)]
        argv += ["-d", str(body), "--log-file", str(log)]
        for key, value in {"content-type": "application/grpc", "te": "trailers", **headers}.items():
            argv += ["-H", f"{key}: {value}"]
        argv.append(f"http://127.0.0.1:{port}{PATH}")
        said = h2load(*argv)
        _check(said, calls)
        return statistics.median(int(line.split("\t")[_MICROSECONDS]) for line in log.read_text().splitlines())


def h2load(*arguments: str) -> str:
    """Run it: what it says. Raises MissingPackageError."""
    program = shutil.which("h2load")
    if program is None:
        raise MissingPackageError("h2load", "nghttp2-client")
    argv = (program, "-t", "1", *arguments)
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=TIMEOUT_S).stdout


def _check(said: str, calls: int) -> None:
    requests, data = _REQUESTS.search(said), _DATA.search(said)
    if requests is None or data is None:
        raise BadAnswersError(f"h2load says something else than expected:\n{said}")
    if requests.groups() != (str(calls), "0", "0", "0"):
        raise BadAnswersError(f"of {calls} calls, not all were answered: {requests.group()}")
    if int(data.group(1)) != calls * len(ANSWER):
        raise BadAnswersError(f"of {calls} calls, not all were answered with the backend's {len(ANSWER)} bytes")
