"""Pages: Markdown text in, passages under their headings out. Pure."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["Passage", "parse"]

# A hundred passages of such lengths are within the contract's response size, whatever they are written in.
_PASSAGE_CHARS, _HEADING_CHARS = 1500, 120
# CommonMark 0.31, "ATX headings" and "Fenced code blocks". Anybody may have written a page: an expression that
# tries to read a line in several ways takes minutes for a long one.
_HEADING = re.compile(r" {0,3}(?P<level>#{1,6})(?=[ \t]|$)")
_FENCE = re.compile(r" {0,3}(?P<mark>`{3,}|~{3,})")
_LINK = re.compile(r"!?\[(?P<text>[^\[\]]*)\]\([^()]*\)")
_MARKUP = re.compile(r"[`*]")
_NOT_IN_ANCHOR = re.compile(r"[^\w\- ]")


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a page, under one heading.

    file: the page's path in the repository. headings: those above the passage, outermost first; none
    before the first. anchor: the last heading's, "" without one. text: as written, in Markdown.
    """

    file: str
    headings: tuple[str, ...]
    anchor: str
    text: str

    @property
    def heading(self) -> str:
        """The heading that the passage is under, "" if there is none."""
        return self.headings[-1] if self.headings else ""

    @property
    def location(self) -> str:
        """Where to read it: the page, and the heading's anchor."""
        return f"{self.file}#{self.anchor}" if self.anchor else self.file


@dataclass(slots=True)
class _Section:
    headings: tuple[str, ...] = ()
    anchor: str = ""
    lines: list[str] = field(default_factory=list[str])


def parse(file: str, text: str) -> list[Passage]:
    """The passages of the page at path file, in order. Headings that nothing stands under give none."""
    return [
        Passage(file, section.headings, section.anchor, piece)
        for section in _sections(text)
        for piece in _pieces(section.lines)
    ]


def _sections(text: str) -> Iterator[_Section]:
    """What stands under each heading, fenced code never taken for one."""
    section, open_headings, anchors = _Section(), dict[int, str](), Counter[str]()
    fence = ""
    for line in text.splitlines():
        fence = _fence_after(line, fence)
        found = None if fence else _HEADING.match(line)
        if found is None:
            section.lines.append(line)
            continue
        yield section
        level, heading = len(found["level"]), _plain(_without_closing(line[found.end() :]))
        open_headings = {above: name for above, name in open_headings.items() if above < level} | {level: heading}
        section = _Section(tuple(open_headings.values()), _anchor(heading, anchors))
    yield section


def _pieces(lines: list[str]) -> list[str]:
    """The lines in pieces of at most _PASSAGE_CHARS: whole paragraphs, else lines, else what of one has room."""
    pieces: list[str] = []
    for paragraph in (piece for whole in _paragraphs(lines) for piece in _cut(whole) if piece.strip()):
        if pieces and len(pieces[-1]) + len(paragraph) + 2 <= _PASSAGE_CHARS:
            pieces[-1] = f"{pieces[-1]}\n\n{paragraph}"
        else:
            pieces.append(paragraph)
    return pieces


def _cut(paragraph: str) -> Iterator[str]:
    """The paragraph, in pieces if it is too long for a passage; some may be blank."""
    piece = ""
    for line in paragraph.split("\n"):
        for start in range(0, len(line) or 1, _PASSAGE_CHARS):
            part = line[start : start + _PASSAGE_CHARS]
            if len(piece) + 1 + len(part) <= _PASSAGE_CHARS:
                piece = f"{piece}\n{part}" if piece else part
            else:
                yield piece
                piece = part
    yield piece


def _paragraphs(lines: list[str]) -> Iterator[str]:
    """The lines parted at blank ones, those in fenced code excepted."""
    paragraph: list[str] = []
    fence = ""
    for line in [*lines, ""]:
        fence = _fence_after(line, fence)
        if line.strip() or fence:
            paragraph.append(line)
        elif paragraph:
            yield "\n".join(paragraph)
            paragraph = []
    if paragraph:
        yield "\n".join(paragraph).rstrip("\n")


def _fence_after(line: str, fence: str) -> str:
    """The mark of the fence that is open after line, "" for none; the closing line itself is after it."""
    found = _FENCE.match(line)
    if found is None:
        return fence
    mark = found["mark"]
    if not fence:
        return mark
    closes = mark[0] == fence[0] and len(mark) >= len(fence) and not line.strip().strip(mark[0])
    return "" if closes else fence


def _without_closing(heading: str) -> str:
    """What follows a heading's marks, without spaces and the marks that may close it."""
    text = heading.strip(" \t")
    rest = text.rstrip("#")
    return text if rest and rest[-1] not in " \t" else rest.rstrip(" \t")


def _plain(heading: str) -> str:
    """The heading's text without Markdown, cut if it is none that anybody would read."""
    return _MARKUP.sub("", _LINK.sub(lambda link: link["text"], heading)).strip()[:_HEADING_CHARS].rstrip()


def _anchor(heading: str, taken: Counter[str]) -> str:
    """The heading's anchor as GitHub makes it; repeated ones are numbered."""
    anchor = _NOT_IN_ANCHOR.sub("", heading.lower()).replace(" ", "-")
    taken[anchor] += 1
    repeats = taken[anchor] - 1
    return f"{anchor}-{repeats}" if repeats else anchor
