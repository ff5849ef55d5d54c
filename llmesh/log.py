"""Logs: JSON lines for programs, plain lines for a terminal; the event, its facts, and the call it is about."""

from __future__ import annotations

import json
import logging
import sys
import time

from llmesh.call import Call, call_now

__all__ = ["JsonFormatter", "TextFormatter", "call_facts", "configure_logging", "printable"]

# What every record has; all else in it are facts, from `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def printable(text: str) -> str:
    """A text as one line that can't steer the terminal it is shown on."""
    return "".join(char for char in text.replace("\n", " ") if char.isprintable() or char == "\t")


def call_facts(call: Call) -> dict[str, object]:
    """What a record tells of a call: its id, and the service and method that were called."""
    service, _, method = call.method.removeprefix("/").partition("/")
    return {"call_id": call.call_id, "service": service, "method": method}


def _facts(record: logging.LogRecord) -> dict[str, object]:
    """The facts of a record. One made while a call is answered has the call's, whoever made it."""
    call = call_now()
    own = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    # A call without an id came from no caller: a health check, a lease renewed.
    return {**call_facts(call), **own} if call and call.call_id else own


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time, level, logger, event, the facts, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        shown: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **_facts(record),
        }
        if record.exc_info:
            shown["traceback"] = self.formatException(record.exc_info)
        return json.dumps(shown, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """For people: the local time, the level where it is worse than info, the event, and the facts as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line; a traceback follows on its own."""
        at = time.strftime("%H:%M:%S", time.localtime(record.created)) + f".{int(record.msecs):03d}"
        level = [record.levelname] if record.levelno > logging.INFO else []
        facts = [
            f"{printable(name)}={_shown(value)}"
            for name, value in _facts(record).items()
            if value not in ("", [], (), None)
        ]
        lines = [" ".join([at, *level, printable(record.getMessage()), *facts])]
        if record.exc_info:
            lines += map(printable, self.formatException(record.exc_info).splitlines())
        return "\n".join(lines)


def _shown(value: object) -> str:
    return printable(value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False))


def _keeps_contents(record: logging.LogRecord) -> bool:
    """Whether a record may be told. gRPC logs what it could not read as text, whole, whoever sent it (grpcio 1.85)."""
    return not str(record.msg).startswith("Invalid encoding on ")


def configure_logging(level: int = logging.INFO) -> None:
    """Write to standard error, JSON unless it is a terminal; nothing if the program has set up logging itself."""
    if logging.getLogger().handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if sys.stderr.isatty() else JsonFormatter())
    # Some libraries set their own loggers to tell everything.
    handler.setLevel(level)
    handler.addFilter(_keeps_contents)
    logging.basicConfig(level=level, handlers=[handler])
