"""The last good catalog on disk, so that a gateway that restarts has it at once.

One file: a magic word, the sha256 of the rest, the length of an index, the
index as JSON, then the descriptor files, each distinct one once. A file that
is not exactly that is worth nothing, and reads as an empty catalog.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError
from pydantic import BaseModel, ConfigDict, ValidationError

from llmesh.home import write_atomically

__all__ = ["Remembered", "Store"]

log = logging.getLogger(__name__)

MAGIC = b"llmesh catalog 1\n"
SUM = 32
LENGTH = 8


@dataclass(frozen=True, slots=True)
class Remembered:
    """An endpoint that served admitted tools.

    services: full name -> the files of its contract. health_checked: those
    whose health it tells.
    """

    address: str
    services: dict[str, Sequence[FileDescriptorProto]]
    health_checked: frozenset[str] = frozenset()


class _Endpoint(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    address: str
    health_checked: list[str]
    # Service -> its files, as places in Index.sizes.
    services: dict[str, list[int]]


class _Index(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    # Sizes of the descriptor files, in bytes, in the order they follow.
    sizes: list[int]
    endpoints: list[_Endpoint]


class Store:
    """Keeps what was admitted, in the order of admission."""

    def __init__(self, path: Path) -> None:
        """The file need not exist yet; its folder must."""
        self._path = path
        # The files that were kept last, by identity, each with its bytes.
        self._kept: dict[int, tuple[FileDescriptorProto, bytes]] = {}

    def save(self, endpoints: Iterable[Remembered]) -> None:
        """Replace what is kept. Blocks on the disk. Raises OSError."""
        body = self._encode(endpoints)
        write_atomically(self._path, MAGIC + hashlib.sha256(body).digest() + body)

    def _encode(self, endpoints: Iterable[Remembered]) -> bytes:
        """The body of the file. What was kept last is not serialised again: of thousands of tools, one changes."""
        before, self._kept = self._kept, {}
        places: dict[bytes, int] = {}
        told: list[dict[str, object]] = []
        for endpoint in endpoints:
            services: dict[str, list[int]] = {}
            for service, files in endpoint.services.items():
                for file in files:
                    kept = self._kept.get(id(file)) or before.get(id(file))
                    self._kept[id(file)] = kept or (file, file.SerializeToString(deterministic=True))
                services[service] = [places.setdefault(self._kept[id(file)][1], len(places)) for file in files]
            told.append(
                {"address": endpoint.address, "health_checked": sorted(endpoint.health_checked), "services": services}
            )
        # As _Index has it.
        text = json.dumps({"sizes": [len(content) for content in places], "endpoints": told}).encode()
        return b"".join((len(text).to_bytes(LENGTH, "big"), text, *places))

    def load(self) -> list[Remembered]:
        """What was kept last; empty if nothing was, or if it cannot be read."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError:
            log.exception("last good catalog could not be read", extra={"path": str(self._path)})
            return []
        try:
            return _decode(content)
        except (ValueError, DecodeError, IndexError) as err:
            log.warning("last good catalog was unusable", extra={"path": str(self._path), "reason": type(err).__name__})
            return []


def _decode(content: bytes) -> list[Remembered]:
    body = content[len(MAGIC) + SUM :]
    if not content.startswith(MAGIC) or content[len(MAGIC) : len(MAGIC) + SUM] != hashlib.sha256(body).digest():
        raise ValueError("not a whole catalog")
    start = LENGTH + int.from_bytes(body[:LENGTH], "big")
    try:
        index = _Index.model_validate_json(body[LENGTH:start])
    except ValidationError as err:
        raise ValueError("not an index") from err
    files: list[FileDescriptorProto] = []
    for size in index.sizes:
        files.append(FileDescriptorProto.FromString(body[start : start + size]))
        start += size
    return [
        Remembered(
            each.address,
            {service: [files[place] for place in places] for service, places in each.services.items()},
            frozenset(each.health_checked),
        )
        for each in index.endpoints
    ]
