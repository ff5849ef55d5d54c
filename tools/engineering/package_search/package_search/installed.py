"""What is installed: dpkg's status file on disk, and the index of what it says now."""

import asyncio
import logging
from pathlib import Path

from llmesh.errand import Errand
from llmesh.errors import Unavailable

from .index import Index
from .packages import parse

__all__ = ["STATUS", "Installed"]

log = logging.getLogger(__name__)
# Where dpkg keeps it, unless it was built to keep it elsewhere: dpkg(1), FILES.
STATUS = Path("/var/lib/dpkg/status")
_RETRY_AFTER_S = 5.0


class Installed:
    """The packages of one status file, read again when it changes."""

    def __init__(self, status: Path) -> None:
        """status: the file. Nothing is read yet."""
        self._status = status
        self._stamp: tuple[int, int, int] | None = None
        self._index = Index([])
        self._refreshing = Errand(lambda: asyncio.to_thread(self._refresh))

    async def index(self) -> Index:
        """The index of the packages as they are now.

        Calls at once share one look at them. Raises Unavailable if there is no such file, as where there is no dpkg, or
        if it cannot be read: what was installed once may be so no more.
        """
        try:
            return await self._refreshing.result()
        except FileNotFoundError as err:
            message = "the machine of this tool has no list of installed Debian packages"
            raise Unavailable(message, reason="NO_PACKAGES", retry_after_s=_RETRY_AFTER_S) from err
        except OSError as err:
            log.warning("packages not read", extra={"file": str(self._status), "cause": err.strerror})
            message = "the list of installed packages cannot be read now"
            raise Unavailable(message, retry_after_s=_RETRY_AFTER_S) from err

    def _refresh(self) -> Index:
        found = self._status.stat()
        # dpkg puts a new file in the old one's place, so its number changes even where time and size do not.
        stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
        if stamp != self._stamp:
            # Stamped before reading: a file that changes meanwhile is read again by the next call.
            self._index = Index(parse(self._status.read_text(encoding="utf-8", errors="replace")))
            self._stamp = stamp
            log.info("packages read", extra={"packages": len(self._index.packages)})
        return self._index
