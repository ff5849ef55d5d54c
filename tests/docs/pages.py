"""A page of documentation as what a reader does with it: files to write, commands to type.

A fenced block is `console` (lines after "$ " are typed, the rest is what they
print), or a file: the line above it is the file's path in backticks. A block
that cannot be run here says why: ```console not-run=REASON.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```(?P<info>[^\n`]+)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
PATH = re.compile(r"^`(?P<path>[^`\n]+)`:\n\n\Z", re.MULTILINE)
NOT_RUN = "not-run="
# What a reader only looks at.
PICTURES = ("text",)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. path: of the file that it is; empty for a console. not_run: why it isn't run, if it isn't."""

    line: int
    language: str
    body: str
    path: str
    not_run: str


@dataclass(frozen=True, slots=True)
class Command:
    """What is typed, and the lines it prints; no lines: anything."""

    typed: str
    printed: tuple[str, ...]

    @property
    def fails(self) -> bool:
        """Whether it is shown to fail."""
        return any(line.startswith("error: ") for line in self.printed)

    def accepts(self, output: str) -> bool:
        """Whether the output is the printed one: `...` is anything within a line, or any lines; spaces run together."""
        if not self.printed:
            return True
        pattern = "".join(_line_pattern(line) for line in self.printed)
        return re.fullmatch(pattern, "".join(f"{line.rstrip()}\n" for line in output.splitlines())) is not None


def blocks(page: Path) -> list[Block]:
    """The page's blocks, in order."""
    text = page.read_text()
    found: list[Block] = []
    for match in FENCE.finditer(text):
        language, _, rest = match["info"].partition(" ")
        named = PATH.search(text[: match.start()])
        line = text.count("\n", 0, match.start()) + 1
        found.append(
            Block(line, language, match["body"], named["path"] if named else "", rest.strip().removeprefix(NOT_RUN))
        )
    return found


def commands(block: Block) -> list[Command]:
    """The commands of a console; one goes on after a backslash at a line's end."""
    found: list[tuple[str, list[str]]] = []
    for line in block.body.splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        elif found and not found[-1][1] and found[-1][0].endswith("\\"):
            found[-1] = (found[-1][0].removesuffix("\\") + line.strip(), [])
        else:
            found[-1][1].append(line)
    return [Command(typed, tuple(printed)) for typed, printed in found]


def _line_pattern(line: str) -> str:
    if line.strip() == "...":
        return r"(?:.*\n)*?"
    words = [".*".join(re.escape(part) for part in word.split("...")) for word in line.split()]
    indent = r"\s*" if line[:1] == " " else ""
    return indent + r"[ \t]+".join(words) + r"\n"
