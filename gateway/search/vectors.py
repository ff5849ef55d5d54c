"""Vectors of texts, as one model made them; kept on disk, so that only what changed is made again."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import cast

import numpy as np
from numpy.typing import NDArray

from llmesh.home import write_atomically

__all__ = ["NONE", "Vector", "Vectors", "key_of", "load", "read", "save"]

log = logging.getLogger(__name__)

Vector = NDArray[np.float32]
# Of a file: a magic word, the sha256 of the rest, the length of a JSON index, the index, then the numbers.
_MAGIC = b"llmesh vectors 1\n"
_SUM, _LENGTH = 32, 8
# Kept beside those in use, e.g. of tools that come back. Beyond that, only what is in use is kept.
_SPARE = 1000


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors by the keys of their texts; all of one length, made by one model. Immutable.

    model: tells the model from any other, by its weights. Empty while there is none.
    """

    model: str = ""
    known: Mapping[bytes, Vector] = field(default_factory=lambda: MappingProxyType({}))

    def of(self, model: str) -> Vectors:
        """Those of a model: these, or none."""
        return self if model == self.model else Vectors(model)

    def with_(self, model: str, more: Mapping[bytes, Vector]) -> Vectors:
        """With more of them; without those of another model."""
        return Vectors(model, {**self.of(model).known, **more})

    def kept(self, used: Collection[bytes]) -> Vectors:
        """Without those not in use, if they are many."""
        if len(self.known) <= 2 * len(used) + _SPARE:
            return self
        return Vectors(self.model, {key: self.known[key] for key in used if key in self.known})


NONE = Vectors()


def read(vectors: Sequence[Sequence[float]]) -> Vector:
    """Vectors as rows."""
    return np.array(vectors, dtype=np.float32)


def key_of(text: str) -> bytes:
    """What a text's vector is kept by: whatever else of a contract changes, its vector stays."""
    return hashlib.sha256(text.encode()).digest()


def save(path: Path, vectors: Vectors) -> None:
    """Replace what is kept. Blocks on the disk. Raises OSError."""
    keys = list(vectors.known)
    matrix = np.array([vectors.known[key] for key in keys], dtype="<f4")
    index = {"model": vectors.model, "dimension": matrix.shape[1] if keys else 0, "keys": [key.hex() for key in keys]}
    text = json.dumps(index).encode()
    body = b"".join((len(text).to_bytes(_LENGTH, "big"), text, matrix.tobytes()))
    write_atomically(path, _MAGIC + hashlib.sha256(body).digest() + body)


def load(path: Path) -> Vectors:
    """What was kept last; none if nothing was, or if it is not whole: they can be made again."""
    try:
        return _decode(path.read_bytes())
    except FileNotFoundError:
        return NONE
    except (OSError, ValueError) as err:
        log.warning("vectors were unusable", extra={"path": str(path), "reason": str(err)})
        return NONE


def _decode(content: bytes) -> Vectors:
    body = content[len(_MAGIC) + _SUM :]
    if not content.startswith(_MAGIC) or content[len(_MAGIC) : len(_MAGIC) + _SUM] != hashlib.sha256(body).digest():
        raise ValueError("not a whole file of vectors")
    start = _LENGTH + int.from_bytes(body[:_LENGTH], "big")
    # It is what we wrote: its sum says so.
    index = cast("Mapping[str, object]", json.loads(body[_LENGTH:start]))
    keys = cast("Sequence[str]", index["keys"])
    matrix = np.frombuffer(body, dtype="<f4", offset=start).reshape(len(keys), -1)
    return Vectors(str(index["model"]), {bytes.fromhex(key): row for key, row in zip(keys, matrix, strict=True)})
