"""Passages: the pieces of documentation that answers are made of.

collect.py, in a process of its own -> lines of JSON -> Passage.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PYTHON", "Passage", "collect", "split"]

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_COLLECTOR = Path(__file__).with_name("collect.py")
_COLLECT_TIMEOUT_S = 120
_PASSAGE_CHARS = 1500


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of one entry: all of it, unless it is long.

    name: what the entry documents, "asyncio.timeout", or a topic's title. kind: module, class,
    function, method, property or topic. module: the module to import; "" for a topic.
    location: the command that shows the entry whole.
    """

    name: str
    kind: str
    module: str
    location: str
    text: str


def collect() -> list[Passage]:
    """The documentation of this Python's standard library, the same at each call.

    Raises subprocess.SubprocessError if the process that imports the library fails or hangs.
    """
    # -I and -S: nothing but the standard library is importable. No environment: docs that show it show nothing.
    command = [sys.executable, "-I", "-S", str(_COLLECTOR)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=_COLLECT_TIMEOUT_S, env={})  # noqa: S603  our own script
    entries = map(json.loads, done.stdout.decode().splitlines())
    return [
        Passage(
            name=entry["name"],
            kind=entry["kind"],
            module=entry["module"],
            location=f"python{PYTHON} -m pydoc {entry['command']}",
            text=piece,
        )
        for entry in entries
        for piece in split(entry["text"], limit=_PASSAGE_CHARS)
    ]


def split(text: str, *, limit: int) -> list[str]:
    """Text in pieces of at most limit characters: whole paragraphs, else whole lines; a longer line stays whole."""
    pieces: list[str] = []
    for paragraph in _paragraphs(text, limit):
        if pieces and len(pieces[-1]) + len(paragraph) + 2 <= limit:
            pieces[-1] = f"{pieces[-1]}\n\n{paragraph}"
        else:
            pieces.append(paragraph)
    return pieces


def _paragraphs(text: str, limit: int) -> Iterator[str]:
    """The paragraphs of text, those over limit cut at line ends."""
    for paragraph in filter(str.strip, text.split("\n\n")):
        lines: list[str] = []
        for line in paragraph.strip("\n").split("\n"):
            if lines and sum(map(len, lines)) + len(lines) + len(line) > limit:
                yield "\n".join(lines)
                lines = []
            lines.append(line)
        yield "\n".join(lines)
