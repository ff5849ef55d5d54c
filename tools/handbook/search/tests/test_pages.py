import pytest
from search.pages import parse

PAGE = """\
Before any heading.

# Guide to `llmesh`

Intro.

## Run [it](docs/run.md)

```sh
# no heading

make up
```

Then wait.

### On a laptop ###

Fine.

## Run it

Again.
"""


def test_page_is_read_by_heading() -> None:
    found = [(passage.headings, passage.location, passage.text) for passage in parse("docs/a.md", PAGE)]

    assert found == [
        ((), "docs/a.md", "Before any heading."),
        (("Guide to llmesh",), "docs/a.md#guide-to-llmesh", "Intro."),
        (
            ("Guide to llmesh", "Run it"),
            "docs/a.md#run-it",
            "```sh\n# no heading\n\nmake up\n```\n\nThen wait.",
        ),
        (("Guide to llmesh", "Run it", "On a laptop"), "docs/a.md#on-a-laptop", "Fine."),
        (("Guide to llmesh", "Run it"), "docs/a.md#run-it-1", "Again."),
    ]


HEADINGS = [
    ("# One", "One", "one"),
    ("###### Six", "Six", "six"),
    ("   # Indented", "Indented", "indented"),
    ("# What's *new*?", "What's new?", "whats-new"),
    ("# snake_case & kebab-case", "snake_case & kebab-case", "snake_case--kebab-case"),
    ("# Über uns", "Über uns", "über-uns"),
    ("# C#", "C#", "c"),
    ("#", "", ""),
]


@pytest.mark.parametrize(("line", "heading", "anchor"), HEADINGS, ids=[line for line, _, _ in HEADINGS])
def test_heading_is_plain_and_has_githubs_anchor(line: str, heading: str, anchor: str) -> None:
    (found,) = parse("a.md", f"{line}\ntext")

    assert (found.heading, found.anchor) == (heading, anchor)


@pytest.mark.parametrize("line", ["#hashtag", "####### seven", "    # code", "text # not", "\\# escaped"])
def test_line_that_is_no_heading_is_text(line: str) -> None:
    (found,) = parse("a.md", line)

    assert (found.headings, found.text) == ((), line)


FENCES = [
    "```\n# x\n\n# y\n```",
    "~~~\n# x\n```\n# y\n~~~",
    "````\n```\n# x\n````",
    "```python title\n# x\n```",
    "```\n# never closed\n\n# still code",
]


@pytest.mark.parametrize("text", FENCES)
def test_fenced_code_stays_whole_and_holds_no_headings(text: str) -> None:
    (found,) = parse("a.md", text)

    assert (found.headings, found.text) == ((), text)


def test_long_section_is_split_at_paragraphs() -> None:
    paragraphs = [f"{letter} " * 400 for letter in "abc"]
    found = parse("a.md", "# Long\n" + "\n\n".join(paragraphs))

    assert [passage.text.strip() for passage in found] == [paragraph.strip() for paragraph in paragraphs]
    assert {passage.location for passage in found} == {"a.md#long"}


@pytest.mark.parametrize("text", ["", "\n\n", "# Only\n## Headings\n"])
def test_page_that_says_nothing_has_no_passages(text: str) -> None:
    assert parse("a.md", text) == []
