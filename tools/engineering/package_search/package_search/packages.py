"""Packages: the text of dpkg's status file in, installed packages out. Pure.

The format is that of Debian Policy, 5.1: paragraphs parted by blank lines, each of fields
`Name: value`, whose further lines begin with a space or a tab.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Package", "parse"]

# One description is cut here: a hundred passages stay far below the contract's response size.
_DESCRIPTION_CHARS = 6000
_BLANK_LINES = re.compile(r"\n[ \t]*\n")


@dataclass(frozen=True, slots=True)
class Package:
    """One installed package.

    section: the part of Debian that it belongs to, "" if it says none. summary: what it is, in one
    line. text: the summary, then what it says of itself, in paragraphs.
    """

    name: str
    version: str
    section: str
    summary: str
    text: str


def parse(status: str) -> list[Package]:
    """The installed packages that describe themselves, in the file's order, each name once.

    A paragraph that is damaged gives none, and harms no other.
    """
    found: dict[str, Package] = {}
    for paragraph in _BLANK_LINES.split(status):
        fields = dict(_fields(paragraph))
        name, description = fields.get("package", ""), fields.get("description", "")
        # Of a package of several architectures the first will do: they say the same.
        if name and description and name not in found and fields.get("status", "").endswith(" installed"):
            found[name] = _package(name, description, fields)
    return list(found.values())


def _fields(paragraph: str) -> Iterator[tuple[str, str]]:
    """The fields, names in lower case; the lines of a value are parted by line ends."""
    name, lines = "", list[str]()
    for line in paragraph.split("\n"):
        if line[:1] in (" ", "\t"):
            lines.append(line[1:])
            continue
        if name:
            yield name, "\n".join(lines).strip()
        name, _, value = line.partition(":")
        name, lines = name.strip().lower(), [value.strip()]
    if name:
        yield name, "\n".join(lines).strip()


def _package(name: str, description: str, fields: dict[str, str]) -> Package:
    summary, _, rest = description.partition("\n")
    # A line with a dot alone stands for a blank one: Policy, 5.6.13.
    paragraphs = "\n".join("" if line.strip() == "." else line for line in rest.split("\n"))
    return Package(
        name=name,
        version=fields.get("version", ""),
        # "non-free/libs" is the section libs of another area.
        section=fields.get("section", "").rpartition("/")[2],
        summary=summary,
        text=f"{summary}\n\n{paragraphs}".strip()[:_DESCRIPTION_CHARS],
    )
