"""The index on disk: built once per Python and version of this package, checked at each load.

A folder `doc-search-<key>` holds the passages, the ranking and a checksum of both. It is made
beside its place and moved there whole, so a reader finds all of it or nothing; one that is
damaged is built again. It can be deleted at any time.
"""

import hashlib
import json
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from .index import Index, rank
from .passages import Passage, collect
from .ranking import Ranking

__all__ = ["load_or_build"]

log = logging.getLogger(__name__)
_CHECK, _PASSAGES, _RANKING = "sha256", "passages.json", "ranking"


def load_or_build(cache: Path) -> Index:
    """The index in the folder cache, which is made; building takes a few seconds, loading a fraction of one."""
    started_s = time.monotonic()
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = cache / f"doc-search-{_key()}"
    index = load(folder)
    if index is None:
        index = save(collect(), folder)
        log.info("index built", extra={"passages": len(index.passages), "build_s": time.monotonic() - started_s})
    return index


def load(folder: Path) -> Index | None:
    """The index in folder; None if there is none, or it is not what was saved."""
    try:
        if folder.joinpath(_CHECK).read_bytes() != _check(folder):
            log.warning("damaged index found", extra={"folder": str(folder)})
            return None
        content = folder.joinpath(_PASSAGES).read_bytes()
        return _index(content, Ranking.load(folder / _RANKING))
    except (FileNotFoundError, NotADirectoryError):
        return None


def save(passages: Sequence[Passage], folder: Path) -> Index:
    """Index passages, in place of whatever is in folder."""
    content = json.dumps([asdict(passage) for passage in passages]).encode()
    ranking = rank(passages)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        made.joinpath(_PASSAGES).write_bytes(content)
        ranking.save(made / _RANKING)
        made.joinpath(_CHECK).write_bytes(_check(made))
        _move(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return _index(content, ranking)


def _index(content: bytes, ranking: Ranking) -> Index:
    """The index of the passages in content; its digest is theirs, however the ranking came to be."""
    passages = [Passage(**fields) for fields in json.loads(content)]
    return Index(passages, ranking, digest=hashlib.sha256(content).hexdigest())


def _move(made: Path, folder: Path) -> None:
    """Put made in folder's place; if another process just did the same, its index stands."""
    if folder.is_dir():
        shutil.rmtree(folder, ignore_errors=True)
    else:
        # It may be there by now, of another process.
        with suppress(IsADirectoryError):
            folder.unlink(missing_ok=True)
    try:
        made.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _key() -> str:
    """What the index depends on: this Python, this package's code, the library that ranks."""
    digest = hashlib.sha256(f"{sys.version} bm25s {version('bm25s')}".encode())
    for module in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(module.read_bytes())
    return f"{sys.version_info.major}.{sys.version_info.minor}-{digest.hexdigest()[:16]}"


def _check(folder: Path) -> bytes:
    """sha256 in hex of every file in folder but the check itself, names included."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != _CHECK:
            content = path.read_bytes()
            digest.update(f"{path.relative_to(folder)} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest().encode()
