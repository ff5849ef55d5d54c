"""The handbook: a repository's pages on disk, and the index of what they say now."""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmesh.errand import Errand

from .index import Index
from .pages import Passage, parse

__all__ = ["Handbook"]

log = logging.getLogger(__name__)
_PAGES = ("README.md", "docs/**/*.md", "tools/*/*/README.md")
# Nobody writes a longer one by hand.
_PAGE_BYTES = 2 << 20


@dataclass(frozen=True, slots=True, order=True)
class _Stamp:
    """What changes when a page does."""

    file: str
    modified_ns: int
    size_bytes: int


class Handbook:
    """The pages under one folder, read again when one appears, changes or goes."""

    def __init__(self, root: Path) -> None:
        """root: the folder that the pages' paths are relative to. Nothing is read yet."""
        self._root = root.resolve()
        self._stamps: list[_Stamp] | None = None
        self._index = Index([])
        self._refreshing = Errand(self._refresh)

    async def index(self) -> Index:
        """The index of the pages as they are now; calls at once share one look at them."""
        return await self._refreshing.result()

    async def _refresh(self) -> Index:
        # Stamped before reading: a page that changes meanwhile is read again by the next call.
        stamps = await asyncio.to_thread(self._stamp)
        if stamps != self._stamps:
            self._index = await asyncio.to_thread(self._read, stamps)
            self._stamps = stamps
            log.info("handbook read", extra={"pages": len(stamps), "passages": len(self._index.passages)})
        return self._index

    def _stamp(self) -> list[_Stamp]:
        return sorted(set(self._stamps_found()))

    def _stamps_found(self) -> Iterator[_Stamp]:
        for path in (path for pattern in _PAGES for path in self._root.glob(pattern)):
            try:
                # A link may not lead out of the handbook: what it answers from is the folder, not the machine.
                if path.resolve().is_relative_to(self._root) and path.is_file():
                    found = path.stat()
                    yield _Stamp(path.relative_to(self._root).as_posix(), found.st_mtime_ns, found.st_size)
            except (
                OSError,
                RuntimeError,
            ):  # gone, not ours to read, or a link to itself (3.11)
                continue

    def _read(self, stamps: list[_Stamp]) -> Index:
        return Index([passage for stamp in stamps for passage in self._page(stamp.file)])

    def _page(self, file: str) -> list[Passage]:
        try:
            with self._root.joinpath(file).open("rb") as page:
                content = page.read(_PAGE_BYTES + 1)
        except OSError as err:
            log.warning("page left out", extra={"page": file, "cause": err.strerror})
            return []
        if len(content) > _PAGE_BYTES:
            log.warning("page left out", extra={"page": file, "cause": f"it is longer than {_PAGE_BYTES} bytes"})
            return []
        return parse(file, content.decode(errors="replace"))
