"""The index on disk: replaced in one step, and checked before it is read."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from llmesh.home import write_atomically
from llmesh.retrieval.nearest import Nearest

__all__ = ["Shelf"]

log = logging.getLogger(__name__)
_GRAPH = ".graph"
_DIGEST_BYTES = 64
_LIBRARY = f"hnswlib {version('hnswlib')}"


@dataclass(frozen=True, slots=True)
class _Label:
    """What lies on the shelf. graph: sha256 of the graph's file, and its name. keys: in hex, in the graph's order."""

    library: str
    model: str
    dimension: int
    graph: str
    keys: Sequence[str]


class Shelf:
    """A folder that holds one index, or none. Several processes may use it: the last one to save is read."""

    def __init__(self, folder: Path) -> None:
        """folder: made when something is saved."""
        self._folder = folder
        self._label = folder / "index"

    def save(self, index: Nearest) -> None:
        """Put it in place of whatever is there, which stays whole until then. Raises OSError, RuntimeError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # One name, so that what is left by a process that was killed takes no room for long.
        draft = self._folder / "draft"
        index.save(draft)
        digest = _digest(draft)
        draft.replace(self._graph(digest))
        keys = [key.hex() for key in index.keys]
        label = json.dumps(asdict(_Label(_LIBRARY, index.model, index.dimension, digest, keys))).encode()
        write_atomically(self._label, hashlib.sha256(label).hexdigest().encode() + label)
        for old in self._folder.glob(f"*{_GRAPH}"):
            if old != self._graph(digest):
                old.unlink(missing_ok=True)

    def load(self) -> Nearest | None:
        """What was saved last; None if nothing was, or if it is not whole: it can be made again."""
        try:
            label = _read(self._label.read_bytes())
            graph = self._graph(label.graph)
            _check(graph, label.graph)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as err:
            log.warning("an index of meanings was unusable", extra={"folder": str(self._folder), "reason": str(err)})
            return None
        return Nearest.load(label.model, map(bytes.fromhex, label.keys), graph, dimension=label.dimension)

    def _graph(self, digest: str) -> Path:
        return self._folder / f"{digest}{_GRAPH}"


def _read(content: bytes) -> _Label:
    digest, label = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if digest != hashlib.sha256(label).hexdigest().encode():
        raise ValueError("not the label that was saved")
    # It is what we wrote: its sum says so.
    fields: dict[str, Any] = json.loads(label)
    if fields.get("library") != _LIBRARY:
        raise ValueError("another library made it")
    return _Label(**fields)


def _check(path: Path, digest: str) -> None:
    """Raise ValueError if it is another file. hnswlib believes what it reads: of one it writes beyond its memory."""
    if _digest(path) != digest:
        raise ValueError("not the graph that was saved")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
