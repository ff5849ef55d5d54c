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
    ("## ##", "", ""),
    ("# Spaced \t #\t ", "Spaced", "spaced"),
    ("# One # two ##", "One # two", "one--two"),
    ("# ![Sign](a.png) of [a link](b.md)", "Sign of a link", "sign-of-a-link"),
]


@pytest.mark.parametrize(("line", "heading", "anchor"), HEADINGS, ids=[line for line, _, _ in HEADINGS])
def test_heading_is_plain_and_has_githubs_anchor(line: str, heading: str, anchor: str) -> None:
    (found,) = parse("a.md", f"{line}\ntext")

    assert (found.heading, found.anchor) == (heading, anchor)


MANY = 200_000
# What an expression that tries each way to read a line would never be done with.
HOSTILE = {
    "spaces": ("# a" + " " * MANY + "b", "a"),
    "tabs and marks": ("# a" + "\t#" * MANY + "b", "a"),
    "marks": ("# " + "#" * MANY + "b", "#" * 120),
    "brackets": ("# " + "[" * MANY, "[" * 120),
    "brackets that close": ("# " + "[" * MANY + "]" * MANY, "[" * 120),
    "links that do not end": ("# " + "[a](" * MANY, "[a](" * 30),
    "images": ("# " + "![" * MANY, "![" * 60),
    "only spaces": ("#" + " " * MANY, ""),
}


@pytest.mark.parametrize(("line", "start"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_heading_is_read_at_once_and_cut(line: str, start: str) -> None:
    found = parse("a.md", f"{line}\ntext")

    assert [passage.text for passage in found] == ["text"]
    assert found[0].heading.startswith(start)
    assert len(found[0].heading) <= 120
    assert len(found[0].anchor) <= 120


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


LONG = {
    "one line": "x" * 1_000_000,
    "lines": "\n".join(["word " * 20] * 1000),
    "a long line among short ones": f"short\n{'y' * 4000}\nshort",
    "code": "```\n" + "\n\n".join(["code"] * 2000) + "\n```",
    "code that is blank": "```\n" + "\n" * 9000 + " " * 9000 + "\n```",
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_longer_paragraph_is_cut_and_nothing_of_it_is_lost(text: str) -> None:
    found = [passage.text for passage in parse("a.md", text)]

    assert max(map(len, found)) <= 1500
    assert all(map(str.strip, found))
    assert "".join("".join(found).split()) == "".join(text.split())


def test_long_paragraph_is_cut_at_line_ends() -> None:
    lines = [f"| {number} | {'cell ' * 20} |" for number in range(100)]
    found = parse("a.md", "\n".join(lines))

    assert len(found) > 1
    assert "\n".join(passage.text for passage in found).split("\n") == lines


@pytest.mark.parametrize("text", ["", "\n\n", "# Only\n## Headings\n"])
def test_page_that_says_nothing_has_no_passages(text: str) -> None:
    assert parse("a.md", text) == []
