"""Policy files by chance: rules that use all that rules may, about words that callers and tools share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
ACTORS = ("acme.support.v1.Tickets", "acme.support.v1.TicketsTwo", "acme.sales.v1.Leads")
DATA_CLASSES = ("internal", "pii", "public", "secret")
LABELS = {"tier": ("gold", "silver"), "language": ("en", "de")}
METHODS = ("Get", "Put", "Burn")
# Where all calls come from.
ADDRESS = "127.0.0.1"
MAX_DEPTH = 3
COMPARED = ("==", "!=", "<", "<=", ">", ">=")
EFFECTS = ("read", "write", "destructive")
# What a rule may be about, of a service and of others.
APPLYING = (
    "services: [{service}]",
    "services: [acme.chosen.v1.Other]",
    "services: [{service}], methods: [Put]",
    "services: [{service}], domains: [sales]",
    "domains: [sales, support], methods: [Get]",
    "domains: [sales]",
    "methods: [Put], effects: [read]",
    "effects: [destructive, write]",
    "roles: [editor, owner]",
)
# Each stands alone in policy files of its own, as a permit and as a forbid.
CHOSEN = (
    "'editor' in caller.roles",
    "caller.domain == tool.domain && ('editor' in caller.roles || 'owner' in caller.roles)",
    "!('pii' in caller.clearances)",
    "size(caller.roles) > 1",
    "size(caller.roles) == 0 && caller.domain != ''",
    "caller.domain in ['sales', 'support'] ? 'owner' in caller.roles : caller.domain == ''",
    "caller.subject.startsWith('robot-') || caller.subject.contains('ü')",
    "caller.subject.endsWith('am') || caller.domain.endsWith('-eu')",
    "caller.subject.startsWith('sam') || caller.domain.contains('ort-')",
    "!(caller.subject == 'samuel') && !(caller.domain == 'sales')",
    "caller.subject.endsWith('m') != caller.domain.endsWith('t')",
    "caller.subject < 'sam' || caller.subject > 't'",
    "size(caller.subject) >= 100 && size(caller.domain) <= 7",
    "caller.issuer == 'corp' && caller.actor == ''",
    "caller.actor == 'acme.support.v1.Tickets' || caller.actor.startsWith('acme.sales.')",
    "caller.actor != '' && !('editor' in caller.roles)",
    "'strong' in caller.clearances || 'percent' in caller.roles",
    "tool.labels['tier'] == 'gold' || caller.domain == 'support'",
    "tool.labels['none'] == 'gold' || caller.domain == 'support'",
    "!(tool.labels['none'] == 'gold' || caller.domain == 'support')",
    "'' in caller.roles || '' in caller.clearances || caller.domain == ' support'",
    "caller.roles.size() < 3 && !(caller.domain == 'support' && 'pii' in caller.clearances)",
    "caller.domain in caller.roles || caller.subject in caller.clearances",
    "true",
    "false",
    'caller.domain == "it\'s \\"quoted\\" \\\\ \\n"',
    "tool.stage == Stage.STAGE_EXPERIMENTAL && caller.subject != ''",
    "tool.cost == Cost.COST_HIGH && caller.subject != ''",
    "tool.effect != Effect.EFFECT_READ && caller.subject != ''",
    "tool.unclassified",
    "tool.needs_approval || tool.hidden",
    "size(tool.data_classes) == 0",
    "caller.domain in ['sales', 'support']",
    "context.address == '127.0.0.1' && 'editor' in caller.roles",
    "'editor' in caller.roles || !context.address.startsWith('127.0.')",
    "context.address in ['10.0.0.5', '127.0.0.1']",
    "context.address.endsWith('7.0.0.1') && !context.address.contains('10.')",
)


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


def alone() -> Iterator[Texts]:
    """Each chosen rule alone, as one that permits, and as one that forbids what is else permitted to everybody."""
    for when in CHOSEN:
        yield Texts(_mesh(_one("one", "permit", when)))
        yield Texts(_mesh(_one("one", "forbid", when), EVERYBODY))


def applying(where: str) -> Texts:
    """One rule that permits everything that is there."""
    return Texts(_mesh(f"- {{id: one, effect: permit, reason: because, applies: {{{where}}}}}\n"))


def narrowing() -> Iterator[Texts]:
    """Domains' files that would change what the mesh permits, if they could."""
    cleared = "'pii' in caller.clearances"
    of_mesh = _mesh(_one("one", "permit", "'editor' in caller.roles"), _one("two", "forbid", "'robot' in caller.roles"))
    for default in ("inherit", "deny"):
        for rules in ([], [_one("own", "permit", cleared)], [_one("own", "forbid", cleared)], [EVERYBODY]):
            head = f"version: 1\ndomain: support\ndefault: {default}\n"
            own = head + "".join(["rules:\n", *rules] if rules else [])
            yield Texts(of_mesh, {"domains/support.yaml": own})


EVERYBODY = "- {id: z, effect: permit, reason: all may}\n"


def _mesh(*rules: str) -> str:
    return "".join(["version: 1\nrules:\n", *rules])


def _one(name: str, effect: str, when: str) -> str:
    return f"- id: {name}\n  effect: {effect}\n  reason: because\n  when: >-\n    {when}\n"


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
    if seed.random() < 0.12:
        lines.append("  mode: shadow")
    applies = _applies(seed, services)
    if applies:
        lines.append(f"  applies: {{{', '.join(applies)}}}")
    if seed.random() < 0.9:
        when = _expression(seed, 0 if effect == "permit" else 1)
        # Where a call comes from cannot stand in every place.
        when = f"{seed.choice(_JOINED_WITH_ADDRESS).format(when, _address(seed))}" if seed.random() < 0.1 else when
        lines += ["  when: >-", f"    {when}"]
    return "\n".join(lines)


def _applies(seed: Random, services: Sequence[str]) -> list[str]:
    """Mostly, a rule applies to all."""
    known = {"domains": DOMAINS, "services": services, "methods": METHODS, "effects": EFFECTS, "roles": ROLES}
    return [
        f"{key}: [{', '.join(seed.sample(values, seed.randint(1, len(values) - 1)))}]"
        for key, values in known.items()
        if len(values) > 1 and seed.random() < 0.12
    ]


def _expression(seed: Random, depth: int) -> str:
    if depth >= MAX_DEPTH or seed.random() < 0.25:
        return seed.choice(_ATOMS)(seed)
    parts = [_expression(seed, depth + 1) for _ in range(3)]
    return seed.choice(_JOINS).format(*parts)


_JOINS = ("({} && {})", "({} && {})", "({} || {})", "({} || {})", "!({})", "({} ? {} : {})")


_JOINED_WITH_ADDRESS = ("{} && {}", "{} || {}", "{} && !({})", "!({} || {})")


def _address(seed: Random) -> str:
    known = [ADDRESS, "10.0.0.5", "127.", ".1", "27.0.0", "::1"]
    value = seed.choice(known)
    return "context.address" + seed.choice(
        [
            f" == '{value}'",
            f" != '{value}'",
            f" in ['{value}', '{seed.choice(known)}']",
            f".startsWith('{value}')",
            f".endsWith('{value}')",
            f".contains('{value}')",
        ]
    )


def _quoted(seed: Random, *words: Sequence[str]) -> str:
    word = seed.choice([each for some in words for each in some])
    # Now and then a part of one, or none.
    word = seed.choice([word, word, word, word, word[:3], word[-3:], ""])
    return "'" + word.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _text(seed: Random) -> tuple[str, str]:
    """A text of the caller's, and a value that it may have."""
    name, words = seed.choice(
        [
            ("subject", SUBJECTS),
            ("domain", DOMAINS),
            ("domain", DOMAINS),
            ("issuer", ("corp", "partner", "cloud")),
            ("actor", ACTORS),
        ]
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
