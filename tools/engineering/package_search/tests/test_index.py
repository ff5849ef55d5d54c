import pytest
from package_search.index import Index, words
from package_search.packages import Package

WORDS: list[tuple[str, list[str]]] = [
    ("libssl-dev", ["libssl", "dev", "libssl-dev"]),
    ("g++", ["g", "g++"]),
    ("Python3.11", ["python3", "11", "python3.11"]),
    ("The libraries, and a library.", ["library", "library"]),
    ("programs bus gas class its", ["program", "bus", "gas", "class"]),
    ("Größe öffnen", ["größe", "öffnen"]),
    ("--- ... _ !?", []),
    ("", []),
]


@pytest.mark.parametrize(("text", "expected"), WORDS, ids=[text for text, _ in WORDS])
def test_words_of_text(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def package(name: str, summary: str, section: str = "utils") -> Package:
    return Package(name, "1", section, summary, summary)


@pytest.mark.parametrize("packages", [[], [package("_", "---", section="")]], ids=["no packages", "no words"])
def test_index_without_words_finds_nothing(packages: list[Package]) -> None:
    assert Index(packages).search("anything", limit=10, filters=[]) == []


def test_scores_fall_from_at_most_one_to_above_zero() -> None:
    index = Index([package("jq", "JSON processor"), package("yq", "YAML and JSON processor"), package("ed", "editor")])
    scores = [hit.score for hit in index.search("json processor", limit=9, filters=[])]

    assert len(scores) == 2
    assert 1 >= scores[0] > scores[1] > 0


def test_words_that_nobody_uses_lower_the_score() -> None:
    index = Index([package("jq", "JSON processor"), package("ed", "editor")])
    known, diluted = (index.search(query, limit=1, filters=[])[0].score for query in ("json", "json qqzzq"))

    assert diluted < known


def test_digest_says_which_packages_there_are() -> None:
    one, other = [package("jq", "JSON")], [package("jq", "YAML")]

    assert Index(one).digest == Index(one).digest != Index(other).digest
