"""Libraries that take seconds to import: one at a time."""

from __future__ import annotations

import threading

__all__ = ["IMPORTING"]

# Held while such a library is imported. Two threads that import at once share one interpreter, so that neither is ready
# soon, and either may meet a module of which the other has only half.
IMPORTING = threading.Lock()
