"""Claims: some chosen for what they are apt to break, and some by chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from tests.differential.rules import CLEARANCES, DOMAINS, ROLES, SUBJECTS

# A claim that is ... is left out.
Claims = Mapping[str, object]

CHOSEN: Mapping[str, Claims] = {
    "plain": {},
    "editor": {"roles": ["editor"], "domain": "support"},
    "owner": {"roles": ["owner", "editor"], "domain": "support", "clearances": ["pii"]},
    "other domain": {"roles": ["editor"], "domain": "sales", "clearances": ["pii", "secret"]},
    "one text": {"roles": "editor", "domain": "support", "clearances": "pii"},
    "nulls": {"roles": None, "domain": None, "clearances": None, "groups": None, "realm": None, "mfa": None},
    "numbers": {"roles": 1, "domain": 2.5, "clearances": -1, "groups": 0, "mfa": 1},
    "large numbers": {"roles": 10**30, "domain": 1e300, "mfa": [2**63, -(2**64)]},
    "booleans": {"roles": True, "domain": True, "clearances": False, "groups": True, "mfa": True},
    "objects": {"roles": {"editor": "editor"}, "domain": {"support": 1}, "groups": {"llm-editors": True}, "mfa": {}},
    "mixed list": {"roles": [None, "editor", 5, ["owner"], {"owner": 1}, "b,owner", "x y", "robot", None]},
    "null first": {"roles": [None], "clearances": [None, "pii"], "domain": [None, "support", "sales"]},
    "nulls throughout": {"roles": [None, None, None, "editor", None, None, None, None, "owner", None, None]},
    "nested lists": {"roles": [["editor"]], "groups": [["llm-editors"]]},
    "commas": {"roles": ["a,editor", "editor,"], "domain": "support,", "clearances": "pii,secret"},
    "line ends": {
        "roles": ["editor\r\nx-llmesh-roles: owner", "editor\n"],
        "domain": "support\r",
        "clearances": "pii\n",
    },
    "NUL": {"roles": ["editor\x00", "\x00editor", "edi\x00tor"], "domain": "support\x00x", "groups": "llm-editors\x00"},
    "spaces": {"roles": [" editor", "editor ", ""], "domain": " support", "clearances": [""]},
    "other letters": {"roles": ["édiťor", "editor"], "domain": "süpport", "clearances": ["😀"]},
    "128 and 129": {"roles": ["r" * 128, "r" * 129], "domain": "d" * 128},
    "deep": {"realm": {"access": ["editor", "owner"]}},
    "deep, a list on the way": {"realm": [{"access": ["editor"]}]},
    "deep, a text on the way": {"realm": "access"},
    "deep, by number": {"realm": {"1": ["editor"], "access": {"1": "editor"}}},
    "deep, by a name with a dot": {"realm.access": ["owner"]},
    "group": {"groups": ["x", "llm-editors", None]},
    "group as text": {"groups": "llm-editors", "domain": "support"},
    "group, part of": {"groups": ["llm-editors2", "xllm-editors"]},
    "flag": {"mfa": "totp"},
    "empty list": {"roles": [], "mfa": [], "groups": []},
    "robot": {"sub": "robot-7"},
    "robot by name alone": {"sub": "a-robot-7", "domain": "support"},
    "a name": {"sub": "ada"},
    "a name that is longer": {"sub": "adam", "roles": ["editor"]},
    "pattern letters": {"sub": "a%d", "roles": ["%a+", "a.b:c@d/e+f-g_h"]},
    "odd subject": {"sub": "Jürgen Ü|,\"'\\;=😀", "domain": "support"},
    "long subject": {"sub": "s" * 256, "roles": ["editor"], "domain": "support"},
    "too long a subject": {"sub": "s" * 257, "roles": ["editor"], "domain": "support"},
    "too many bytes of subject": {"sub": "ü" * 129, "roles": ["owner"]},
    "no subject": {"sub": ..., "roles": ["owner"], "domain": "support"},
    "empty subject": {"sub": "", "roles": ["owner"], "domain": "support"},
    "subject with NUL": {"sub": "sam\x00root", "roles": ["owner"], "domain": "support"},
    "subject with line end": {"sub": "sam\r\nx-llmesh-roles: owner", "roles": ["owner"]},
    "subject with DEL": {"sub": "sam\x7f"},
    "subject with space before": {"sub": " sam"},
    "subject with space after": {"sub": "sam "},
    "own words": {"issuer": "evil", "subject": "root", "actor": "root", "v": {"roles": ["owner"]}},
    "repeated": {"roles": ["editor", "editor", "owner", "editor"], "realm": {"access": ["owner", "x"]}},
    "many roles": {"roles": [f"role-{index}" for index in range(60)]},
}

_NOTHING: list[object] = []
_NONE_NAMED: dict[str, object] = {}
_ODD: Sequence[object] = (
    *(
        ...,
        None,
        True,
        False,
        0,
        -1.5,
        "",
        _NOTHING,
        _NONE_NAMED,
        [None],
        [_NOTHING],
        [_NONE_NAMED],
        [["editor"]],
        {"editor": "support"},
    ),
    *(
        "pii,secret",
        "editor\n",
        " support",
        "support ",
        "\x00",
        "édiťor",
        "r" * 129,
        [None, "editor", 7],
        [True, "pii"],
    ),
)


def by_chance(seed: Random) -> Claims:
    """Claims of a caller: mostly such that grant something, now and then odd ones."""
    return {
        "sub": seed.choice(SUBJECTS),
        "roles": _claim(seed, ROLES),
        "domain": _claim(seed, DOMAINS),
        "clearances": _claim(seed, CLEARANCES),
        "groups": _claim(seed, ("llm-editors", "support", "llm-editors2", "sales")),
        "mfa": _claim(seed, ("totp", "key")),
        "realm": _claim(seed, ()) if seed.random() < 0.3 else _object(access=_claim(seed, ROLES)),
    }


def _object(**fields: object) -> Mapping[str, object]:
    return {name: value for name, value in fields.items() if value is not ...}


def _claim(seed: Random, words: Sequence[str]) -> object:
    if not words or seed.random() < 0.3:
        return seed.choice(_ODD)
    if seed.random() < 0.4:
        return seed.choice(words)
    found: list[object] = [*seed.sample(words, seed.randint(0, min(3, len(words))))]
    if seed.random() < 0.2:
        found.insert(seed.randint(0, len(found)), seed.choice(_ODD[1:]))
    return found
