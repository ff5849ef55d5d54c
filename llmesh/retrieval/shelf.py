"""The index on disk: replaced in one step, and checked before it is read."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from llmesh.home import write_atomically
from llmesh.retrieval.nearest import Nearest, Vector

__all__ = ["Shelf"]

log = logging.getLogger(__name__)
_LABEL, _DRAFT, _VECTORS, _GRAPH = "index", "draft", ".vectors", ".graph"
# The names of what is made here: nothing else in the folder is touched.
_OURS = (_LABEL, _DRAFT, f"*{_VECTORS}", f"*{_GRAPH}")
_DIGEST_BYTES = 64
# For others to be done, and between two looks: one that hangs must keep nobody from going on, or from ending.
_WAIT_S, _LOOK_S = 5.0, 0.01
# What this is written as, and which library alone reads it.
_FORM = f"2, hnswlib {version('hnswlib')}"


@dataclass(frozen=True, slots=True)
class _Label:
    """What lies on the shelf.

    vectors, graph: sha256 of their files, and the files' names; graph is empty if there is none. keys: in hex, in the
    vectors' order.
    """

    form: str
    model: str
    vectors: str
    graph: str
    keys: Sequence[str]


class Shelf:
    """A folder that holds one index, or none.

    Several processes may use it, by turns: the last one to save is read.
    """

    def __init__(self, folder: Path) -> None:
        """folder: made when something is saved."""
        self._folder = folder
        self._label = folder / _LABEL

    def save(self, index: Nearest) -> None:
        """Put it in place of whatever is there, which stays whole until then.

        Raises OSError, as where others hold the folder for long, and RuntimeError.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked(fcntl.LOCK_EX):
            for in_the_way in (path for ours in _OURS for path in self._folder.glob(ours) if path.is_dir()):
                shutil.rmtree(in_the_way)
            vectors = self._put(_VECTORS, partial(_write, index.vectors))
            graph = self._put(_GRAPH, index.graph.save_index) if index.graph else ""
            keys = [key.hex() for key in index.rows]
            label = json.dumps(asdict(_Label(_FORM, index.model, vectors, graph, keys))).encode()
            write_atomically(self._label, hashlib.sha256(label).hexdigest().encode() + label)
            for kind, kept in ((_VECTORS, vectors), (_GRAPH, graph)):
                for old in self._folder.glob(f"*{kind}"):
                    if old.stem != kept:
                        old.unlink(missing_ok=True)

    def load(self) -> Nearest | None:
        """What was saved last; None if nothing was, or if it cannot be had whole: it can be made again."""
        try:
            with self._locked(fcntl.LOCK_SH):
                label = _read(self._label.read_bytes())
                vectors = np.load(self._checked(label.vectors, _VECTORS), allow_pickle=False)
                graph = self._checked(label.graph, _GRAPH) if label.graph else None
                return Nearest.load(label.model, map(bytes.fromhex, label.keys), vectors, graph)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as err:
            log.warning("an index of meanings was unusable", extra={"folder": str(self._folder), "reason": str(err)})
            return None

    @contextmanager
    def _locked(self, how: int) -> Generator[None]:
        """how: LOCK_EX for who writes, LOCK_SH for who reads. Waits for others, not for ever. Raises OSError."""
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            _wait_for(folder, how)
            yield
        finally:
            os.close(folder)

    def _put(self, kind: str, write: Callable[[str], None]) -> str:
        """Have a file written, and call it by its digest, which this returns."""
        # One name, so that what is left by a process that was killed takes no room for long.
        draft = self._folder / _DRAFT
        write(str(draft))
        digest = _digest(draft)
        draft.replace(self._folder / f"{digest}{kind}")
        return digest

    def _checked(self, digest: str, kind: str) -> Path:
        """The file. Raises ValueError if it is another: of one, hnswlib writes beyond its memory."""
        path = self._folder / f"{digest}{kind}"
        if _digest(path) != digest:
            raise ValueError(f"not the {kind.lstrip('.')} that was saved")
        return path


def _wait_for(folder: int, how: int) -> None:
    until_s = time.monotonic() + _WAIT_S
    while True:
        try:
            return fcntl.flock(folder, how | fcntl.LOCK_NB)
        except BlockingIOError as err:
            if time.monotonic() >= until_s:
                message = f"another process has had the lock of this folder for {_WAIT_S:g} s: does it hang?"
                raise TimeoutError(message) from err
        time.sleep(_LOOK_S)


def _write(vectors: Vector, path: str) -> None:
    # By a file: to a path, numpy would add an ending.
    with Path(path).open("wb") as file:
        np.save(file, vectors, allow_pickle=False)


def _read(content: bytes) -> _Label:
    digest, label = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if digest != hashlib.sha256(label).hexdigest().encode():
        raise ValueError("not the label that was saved")
    # It is what we wrote: its sum says so.
    fields: dict[str, Any] = json.loads(label)
    if fields.get("form") != _FORM:
        raise ValueError("it is of another form, or another library's")
    return _Label(**fields)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
