"""Policy files by chance: rules that use all that rules may, about words that callers and tools share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from random import Random

from governance.bundle import Bundle, parse_bundle
from llmesh.api.options.v1 import options_pb2 as options

# Some begin as others do, or hold them: what is compared by a part is found out.
ROLES = ("editor", "editors", "owner", "edit", "robot", "reader", "support.editor", "strong")
DOMAINS = ("support", "sales", "support-eu", "engineering")
CLEARANCES = ("pii", "secret", "pi", "support")
SUBJECTS = ("sam", "samuel", "robot-7", "robot-", "ada", "Jürgen Ü|,;=😀", "a%d", "s" * 256, "support")
DATA_CLASSES = ("internal", "pii", "public", "secret")
LABELS = {"tier": ("gold", "silver"), "language": ("en", "de")}
METHODS = ("Get", "Put", "Burn")
MAX_DEPTH = 3
COMPARED = ("==", "!=", "<", "<=", ">", ">=")
EFFECTS = ("read", "write", "destructive")


@dataclass(frozen=True, eq=False)
class Texts:
    """Policy files as they are written. domains: file name -> text."""

    mesh: str
    domains: Mapping[str, str] = field(default_factory=dict[str, str])

    @cached_property
    def bundle(self) -> Bundle:
        """What they say."""
        return parse_bundle(self.mesh, self.domains)

    def __str__(self) -> str:
        """Every file."""
        return "\n".join([self.mesh, *self.domains.values()])


def mesh_file(seed: Random, services: Sequence[str]) -> str:
    """The rules of the mesh: mostly such that permit. services: those that there are to speak of."""
    rules = [_rule(seed, f"r{index}", services, permits=4) for index in range(seed.randint(1, 4))]
    return "\n".join(["version: 1", "rules:", *rules]) + "\n"


def domain_files(seed: Random, services: Sequence[str]) -> dict[str, str]:
    """The files of some domains, which only narrow."""
    files: dict[str, str] = {}
    for name in seed.sample(DOMAINS, seed.choice([0, 1, 2, 2])):
        rules = [_rule(seed, f"r{index}", services, permits=2) for index in range(seed.randint(0, 3))]
        head = ["version: 1", f"domain: {name}", f"default: {seed.choice(['inherit', 'inherit', 'deny'])}"]
        files[f"domains/{name}.yaml"] = "\n".join([*head, *(["rules:", *rules] if rules else [])]) + "\n"
    return files


def _rule(seed: Random, name: str, services: Sequence[str], *, permits: int) -> str:
    """One rule. permits: how many of five do."""
    effect = "permit" if seed.randrange(5) < permits else "forbid"
    lines = [f"- id: {name}", f"  effect: {effect}", f"  reason: because {name}, {seed.randrange(1000)}"]
    applies = _applies(seed, services)
    if applies:
        lines.append(f"  applies: {{{', '.join(applies)}}}")
    if seed.random() < 0.9:
        lines += ["  when: >-", f"    {_expression(seed, 0 if effect == 'permit' else 1)}"]
    return "\n".join(lines)


def _applies(seed: Random, services: Sequence[str]) -> list[str]:
    """Mostly, a rule applies to all."""
    known = {"domains": DOMAINS, "services": services, "methods": METHODS, "effects": EFFECTS}
    return [
        f"{key}: [{', '.join(seed.sample(values, seed.randint(1, len(values) - 1)))}]"
        for key, values in known.items()
        if seed.random() < 0.12
    ]


def _expression(seed: Random, depth: int) -> str:
    if depth >= MAX_DEPTH or seed.random() < 0.25:
        return seed.choice(_ATOMS)(seed)
    parts = [_expression(seed, depth + 1) for _ in range(3)]
    return seed.choice(_JOINS).format(*parts)


_JOINS = ("({} && {})", "({} && {})", "({} || {})", "({} || {})", "!({})", "({} ? {} : {})")


def _quoted(seed: Random, *words: Sequence[str]) -> str:
    word = seed.choice([each for some in words for each in some])
    # Now and then a part of one, or none.
    word = seed.choice([word, word, word, word, word[:3], word[-3:], ""])
    return "'" + word.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _text(seed: Random) -> tuple[str, str]:
    """A text of the caller's, and a value that it may have."""
    name, words = seed.choice(
        [("subject", SUBJECTS), ("domain", DOMAINS), ("domain", DOMAINS), ("issuer", ("corp", "partner", "cloud"))]
    )
    return f"caller.{name}", _quoted(seed, words)


def _compares(seed: Random) -> str:
    text, value = _text(seed)
    return f"{text} {seed.choice(COMPARED)} {value}"


def _begins(seed: Random) -> str:
    text, value = _text(seed)
    return f"{text}.{seed.choice(['startsWith', 'endsWith', 'contains'])}({value})"


def _among(seed: Random) -> str:
    text, value = _text(seed)
    return f"{text} in [{value}, {_text(seed)[1]}]"


def _equal(seed: Random) -> str:
    text, value = _text(seed)
    return f"{text} {seed.choice(['==', '==', '!='])} {value}"


def _size(seed: Random) -> str:
    of, most = seed.choice([("caller.roles", 3), ("caller.clearances", 2), ("caller.subject", 8), ("caller.domain", 7)])
    return f"size({of}) {seed.choice(COMPARED)} {seed.randint(0, most)}"


def _label(seed: Random) -> str:
    name = seed.choice([*LABELS, "none"])
    value = seed.choice(LABELS.get(name, ("x",)))
    return seed.choice([f"'{name}' in tool.labels", f"tool.labels['{name}'] == '{value}'"])


def _number(seed: Random) -> str:
    name, enum = seed.choice([("effect", options.Effect), ("stage", options.Stage), ("cost", options.Cost)])
    return f"tool.{name} {seed.choice(COMPARED)} {name.title()}.{seed.choice(enum.keys()[1:])}"


def _role(seed: Random) -> str:
    return f"{_quoted(seed, ROLES)} in caller.roles"


def _cleared(seed: Random) -> str:
    return f"{_quoted(seed, CLEARANCES)} in caller.clearances"


def _own_domain(seed: Random) -> str:
    return f"caller.domain {seed.choice(['==', '==', '!='])} tool.domain"


def _odd(seed: Random) -> str:
    return seed.choice(
        [
            "caller.domain in caller.roles",
            "caller.subject in caller.clearances",
            "caller.subject < caller.domain",
            "caller.subject.startsWith(caller.domain)",
            "tool.domain in caller.roles",
            "caller.domain in tool.data_classes",
            "caller.actor == ''",
            "true",
            "false",
            'caller.domain == "it\'s \\"quoted\\" \\\\ \\n"',
        ]
    )


def _of_tool(seed: Random) -> str:
    return seed.choice(
        [
            "tool.hidden",
            "tool.unclassified",
            "tool.needs_approval",
            f"'{seed.choice(DATA_CLASSES)}' in tool.data_classes",
            f"tool.method == '{seed.choice(METHODS)}'",
            f"tool.domain in ['{seed.choice(DOMAINS)}', '{seed.choice(DOMAINS)}']",
            "tool.service.endsWith('One')",
            "size(tool.labels) > 0",
        ]
    )


_ATOMS: Sequence[Callable[[Random], str]] = (
    _role,
    _role,
    _role,
    _cleared,
    _own_domain,
    _equal,
    _equal,
    _compares,
    _begins,
    _begins,
    _among,
    _size,
    _label,
    _number,
    _of_tool,
    _odd,
)
