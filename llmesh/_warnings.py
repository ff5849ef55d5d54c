"""What an answer's reader must be told, as its provenance has it: that a model with random weights wrote it, say.

A response need have no field for that: a prompt alone answers as its method's type. So it travels in the trailers, and
callers hear it in their log.
"""

from __future__ import annotations

__all__ = ["LOGGER", "hear"]

import json
import logging
from collections.abc import Coroutine
from typing import Any, cast

from llmesh.caller import PROVENANCE_KEY
from llmesh.log import printable

LOGGER = "llmesh.client"
log = logging.getLogger(LOGGER)

# Another tool may have written it.
_MOST_CHARS = 300


def hear(path: str, call: Any) -> None:
    """Log the warning that a call which is over came with, if any. path: of its method."""
    # gRPC tells trailers to those who wait for them; of a call that is over it does so at once.
    asked = cast("Coroutine[None, None, object]", call.trailing_metadata())
    try:
        asked.send(None)
    except StopIteration as told:
        trailers: Any = told.value or ()
    else:
        asked.close()
        return
    for key, value in trailers:
        if key == PROVENANCE_KEY and (warning := _warning(value)):
            log.warning("%s: %s", path.removeprefix("/"), warning)


def _warning(provenance: str | bytes) -> str:
    """The first warning among the citations; empty if there is none, or they are no citations."""
    if not isinstance(provenance, str) or '"warning"' not in provenance:
        return ""
    try:
        cited: Any = json.loads(provenance)
    except (ValueError, RecursionError):
        return ""
    for each in cited if isinstance(cited, list) else ():  # pyright: ignore[reportUnknownVariableType] parsed JSON
        if isinstance(each, dict) and isinstance(text := cast("Any", each).get("warning"), str):
            return printable(text)[:_MOST_CHARS]
    return ""
