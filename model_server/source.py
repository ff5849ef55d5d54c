"""Where a model comes from: its files on this machine, and what tells it from every other."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ModelSource", "SourceError", "check_named", "find_source", "id_of"]

COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)?")
WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")
# Digits of the digest that stand for a local folder's revision.
SHORT = 12


class SourceError(Exception):
    """There is no such model; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model's files in a folder.

    id: what it is called. revision: the hub's commit, or the first digits of
    its weights' digest. weights_digest: "sha256:" and hex. warning: what its
    readers must be told; empty if nothing. is_placeholder: its weights are random.
    """

    id: str
    folder: Path
    revision: str
    weights_digest: str
    warning: str = ""
    is_placeholder: bool = False


def id_of(model: str) -> str:
    """What a model is called: a local folder by its name, a hub's by its id."""
    folder = Path(model).expanduser()
    return folder.resolve().name if folder.is_dir() else model


def find_source(model: str, revision: str, *, warning: str = "", id: str = "") -> ModelSource:  # noqa: A002 its name in the contract
    """The model in a local folder, or of a hub at a commit, downloaded if it isn't here.

    id: what to call it; empty: as id_of has it. warning: of
    a placeholder. May take long: its weights are read, and perhaps fetched.
    Raises SourceError.
    """
    check_named(model, revision)
    folder = Path(model).expanduser()
    local = folder.is_dir()
    if not local:
        folder = _fetch(model, revision)
    digest = _digest(folder)
    return ModelSource(
        id=id or id_of(model),
        folder=folder,
        revision=digest[:SHORT] if local else revision,
        weights_digest=f"sha256:{digest}",
        warning=warning,
        is_placeholder=bool(warning),
    )


def check_named(model: str, revision: str) -> None:
    """Raise SourceError if there can be no such model, whatever a hub has: it takes no time."""
    if (folder := Path(model).expanduser()).is_dir():
        _weights(folder)
        return
    if not HUB_ID.fullmatch(model):
        raise SourceError(f"there is no folder `{model}`")
    if not COMMIT.fullmatch(revision):
        raise SourceError(
            f"there is no folder `{model}`, and for a hub's model the revision must be a whole commit, 40 hex digits, "
            f"not `{revision}`: what a branch or a tag means can change"
        )


def _fetch(model: str, revision: str) -> Path:
    """The folder of a hub's model: in the hub's cache, else downloaded."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, revision=revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as err:
        raise SourceError(f"`{model}` at {revision} is neither here nor can it be fetched: {err}") from err


def _digest(folder: Path) -> str:
    """The digest over the names and the digests of the weight files, in order of their names. Raises SourceError."""
    whole = hashlib.sha256()
    for path in _weights(folder):
        with path.open("rb") as file:
            part = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{path.relative_to(folder)}\0{part}\n".encode())
    return whole.hexdigest()


def _weights(folder: Path) -> Sequence[Path]:
    files = sorted(path for path in folder.rglob("*") if path.suffix in WEIGHTS and path.is_file())
    if not files:
        raise SourceError(f"`{folder}` holds no weights: no file ends with {', '.join(WEIGHTS)}")
    return files
