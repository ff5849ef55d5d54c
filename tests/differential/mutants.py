"""Mutants: one mistake each in what makes rules Envoy's, to be found by cells that differ."""

from __future__ import annotations

from dataclasses import dataclass

ACCESS, PREDICATE, SERVICE, BUILD, REFUSALS, VERIFY = (
    f"gateway/snapshot/{name}.py" for name in ("access", "predicate", "service", "build", "refusals", "caller")
)
FACTS = "governance/contract/facts.py"
CALLER, CLAIMS, DELEGATION = (f"gateway/snapshot/{name}.lua" for name in ("caller", "claims", "delegation"))
RESIDUE, RULE, EXPRESSION, DECIDE = (f"governance/{name}.py" for name in ("residue", "rule", "expression", "decide"))


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mistake: in a file, one text stands instead of another that is there once."""

    name: str
    file: str
    old: str
    new: str


# The whole decision, and what route it stands on.
_OF_ACCESS = (
    Mutant("forbids only give reasons", RESIDUE, "*(negation(clause.when) for clause in forbids),", ""),
    Mutant("forbids are not negated", RESIDUE, "*(negation(clause.when) for", "*((clause.when) for"),
    Mutant("nobody asks for a subject", RESIDUE, "        SOMEBODY,\n", ""),
    Mutant(
        "every permit must hold",
        RESIDUE,
        "any_of(*(clause.when for clause in permits))",
        "all_of(*(clause.when for clause in permits))",
    ),
    Mutant(
        "a domain's permits widen",
        RESIDUE,
        "any_of(*(clause.when for clause in permits))",
        "any_of(*(clause.when for clause in (*permits, *(domain_permits or ()))))",
    ),
    Mutant("a domain's default is left out", RESIDUE, "        domain,\n", ""),
    Mutant(
        "a domain without permits inherits",
        RESIDUE,
        "TRUE if domain_permits is None",
        "TRUE if not domain_permits",
    ),
    Mutant(
        "a domain's permits must all hold",
        RESIDUE,
        "else any_of(*(clause.when for clause in domain_permits))",
        "else all_of(*(clause.when for clause in domain_permits))",
    ),
    Mutant(
        "a forbid allows",
        ACCESS,
        '_matcher(clause.when, clause.rule, "DENY")',
        '_matcher(clause.when, clause.rule, "ALLOW")',
    ),
    Mutant("a permit denies", ACCESS, '_matcher(allowed, PERMIT, "ALLOW")', '_matcher(allowed, PERMIT, "DENY")'),
    Mutant("what nobody may is open", ACCESS, "if matchers else deny_all()", "if matchers else make(_RBAC)"),
    Mutant(
        "the first forbid takes all reasons",
        ACCESS,
        "_matcher(clause.when, clause.rule,",
        "_matcher(clause.when, forbids[0].rule,",
    ),
    Mutant("routes turn the rules off", ACCESS, 'RBACPerRoute", rbac=decided)', 'RBACPerRoute")'),
    Mutant("routes bring no rules", SERVICE, '            "llmesh.rules": access.rules(residue),\n', ""),
    Mutant(
        "a route has another's policy",
        SERVICE,
        "residues[method.name], clusters",
        "residues[tool.methods[0].name], clusters",
    ),
    Mutant("no reason where no rule permits", REFUSALS, 'statuses[matched("none")]', 'statuses[matched("nothing")]'),
    Mutant("what is hidden is told of", REFUSALS, "if not residue.tool.hidden:", "if True:"),
)

# What an expression becomes.
_OF_PREDICATES = (
    Mutant("and is or", PREDICATE, '"and_matcher" if function == "_&&_" else "or_matcher"', '"or_matcher"'),
    Mutant(
        "and and or are swapped",
        PREDICATE,
        '"and_matcher" if function == "_&&_"',
        '"and_matcher" if function == "_||_"',
    ),
    Mutant("not is dropped", PREDICATE, '{"not_matcher": _whole(part)}', "_whole(part)"),
    Mutant(
        "unequal is equal",
        PREDICATE,
        '{"not_matcher": _whole(Call("_==_", (field, Const(value))))}',
        '_whole(Call("_==_", (field, Const(value))))',
    ),
    Mutant(
        "a role is compared by its beginning",
        PREDICATE,
        'f"(.*,)?{re.escape(value)}(,.*)?"',
        'f"(.*,)?{re.escape(value)}.*"',
    ),
    Mutant(
        "a role is any that holds it",
        PREDICATE,
        'f"(.*,)?{re.escape(value)}(,.*)?"',
        'f".*{re.escape(value)}.*"',
    ),
    Mutant("equal is begins with", PREDICATE, '"_==_": "exact"', '"_==_": "prefix"'),
    Mutant("begins with is equal", PREDICATE, '"startsWith": "prefix"', '"startsWith": "exact"'),
    Mutant("ends with is holds", PREDICATE, '"endsWith": "suffix"', '"endsWith": "contains"'),
    Mutant("some text is any text", PREDICATE, '{}, "regex": "(?s).+"', '{}, "regex": "(?s).*"'),
    Mutant(
        "empty and not empty are swapped",
        PREDICATE,
        '{"_==_": {"exact": ""}, "_!=_"',
        '{"_!=_": {"exact": ""}, "_==_"',
    ),
    Mutant(
        "a part of a conjunction is lost",
        PREDICATE,
        "yield from _parts(function, right)",
        "yield from _parts(function, left)",
    ),
    Mutant(
        "metadata is read elsewhere", PREDICATE, 'path=[{"key": "v"}, {"key": "subject"}]', 'path=[{"key": "subject"}]'
    ),
    Mutant("no route asks for types", SERVICE, "access.are_typed(residue) or ", ""),
    Mutant("headers are read elsewhere", PREDICATE, '_HEADERS = "x-llmesh-"', '_HEADERS = "x-llmesh_"'),
    Mutant("CEL reads metadata elsewhere", PREDICATE, '_constant(CALLER)]}}, "v")', '_constant(CALLER)]}}, "w")'),
    Mutant(
        "a method's argument is its target",
        PREDICATE,
        "target, *rest = (syntax_tree(argument) for argument in arguments)",
        "*rest, target = (syntax_tree(argument) for argument in arguments)",
    ),
    Mutant(
        "a list loses its last",
        PREDICATE,
        "[_constant(item) for item in value]",
        "[_constant(item) for item in value[:-1]]",
    ),
)

# What rules see of a method.
_OF_FACTS = (
    Mutant(
        "an unset stage stays unset",
        FACTS,
        "tool.lifecycle.stage or options.STAGE_EXPERIMENTAL",
        "tool.lifecycle.stage",
    ),
    Mutant("an unset cost stays unset", FACTS, "stated.options.cost or options.COST_HIGH", "stated.options.cost"),
    Mutant("every method reads", FACTS, "effect=stated.effect", "effect=options.EFFECT_READ"),
    Mutant("classes of data are left out", FACTS, "data_classes=stated.data_classes", "data_classes=()"),
    Mutant("approval is left out", FACTS, "needs_approval=stated.options.needs_approval", "needs_approval=False"),
    Mutant("the unclassified counts as classified", FACTS, "unclassified=stated.unclassified", "unclassified=False"),
)

OF_RULES = (*_OF_ACCESS, *_OF_PREDICATES, *_OF_FACTS)

# Who may vouch, and what a token grants: the tools' own resources stay as they are.
OF_CALLERS = (
    Mutant("any audience will do", VERIFY, '"audiences": issuer.audiences', '"audiences": []'),
    Mutant(
        "any lifetime will do",
        CALLER,
        "if claims.exp - since > issuer.max_lifetime_s + CLOCK_SKEW_S then",
        "if false then",
    ),
    Mutant(
        "an expiry is not asked for",
        CALLER,
        'if type(claims.exp) ~= "number" or claims.exp < 1 then\n    return { "TOKEN_NEVER_EXPIRES", '
        '"the token never expires (no `exp`)" }',
        "if not claims.exp then\n    return nil",
    ),
    Mutant("every issuer's keys are the first's", VERIFY, "keys[issuer.name])", "keys[issuers.issuers[0].name])"),
    Mutant("a domain that nothing grants is absent", CALLER, 'grants.domain[1] or ""', "grants.domain[1]"),
    Mutant("the last domain is taken", CALLER, "grants.domain[1]", "grants.domain[#grants.domain]"),
    Mutant("the actor is absent", CALLER, 'clearances = grants.clearance, actor = ""', "clearances = grants.clearance"),
    Mutant("clearances are roles", CALLER, "clearances = grants.clearance,", "clearances = grants.role,"),
    Mutant("what is granted twice is there twice", CALLER, "if not holds(list, value) then", "if true then"),
    Mutant("any text can be granted", CALLER, "if grantable(text) then", "if true then"),
    Mutant("any length can be granted", CALLER, "#value <= MAX_GRANT_BYTES and", ""),
    Mutant("a subject may hold control characters", CALLER, 'and not value:find("[%z\\1-\\31\\127]")', ""),
    Mutant("a subject may begin with a space", CALLER, 'and not value:find("^ ")', ""),
    Mutant("a subject may be as long as it likes", CALLER, "and #value <= MAX_SUBJECT_BYTES", ""),
    Mutant("a subject's bytes are counted one short", CALLER, "MAX_SUBJECT_BYTES = 256", "MAX_SUBJECT_BYTES = 255"),
    Mutant("every subject pattern ends in a star", CALLER, 'pattern:sub(-1) == "*" and', ""),
    Mutant(
        "a subject is matched anywhere",
        CALLER,
        "subject:sub(1, #pattern - 1) == pattern:sub(1, -2)",
        "subject:find(pattern:sub(1, -2), 1, true)",
    ),
    Mutant(
        "a subject is matched as a pattern",
        CALLER,
        "subject:sub(1, #pattern - 1) == pattern:sub(1, -2)",
        "subject:find('^' .. pattern:sub(1, -2))",
    ),
    Mutant("a binding holds whatever the claim", CALLER, "local met = binding.has", "local met = true or binding.has"),
    Mutant("an empty list grants", CALLER, 'binding.has == "" and #texts > 0', 'binding.has == ""'),
    Mutant(
        "numbers are texts",
        CALLER,
        'if type(value[index]) == "string" then texts[#texts + 1] = value[index]',
        "if value[index] ~= nil then texts[#texts + 1] = tostring(value[index])",
    ),
    Mutant("an issuer is called by its URL", CALLER, "issuer = name, subject", "issuer = issuer.issuer, subject"),
    Mutant(
        "names are not taken apart by dots", CALLER, "value = value[step]", "value = value[table.concat(path, '.')]"
    ),
    Mutant("whoever acts is not told", DELEGATION, 'actor = (path[#path] or ""):match("^/?([^/]*)")', 'actor = ""'),
    Mutant("the first that acts is told", DELEGATION, "actor = (path[#path] or", "actor = (path[1] or"),
    Mutant("a fan-out acts itself", DELEGATION, 'actor = (path[#path] or "")', "actor = (path[#path] or FAN_OUT)"),
    Mutant(
        "a delegation is for any method",
        DELEGATION,
        "for _, each in ipairs(claims.methods) do\n    if each == method",
        "for _, each in ipairs(claims.methods) do\n    if true",
    ),
    Mutant(
        "a delegation may go in circles",
        DELEGATION,
        "for _, each in ipairs(path) do\n    if each == method",
        "for _, each in ipairs(path) do\n    if false",
    ),
    Mutant("what is not there is told to be forbidden", DELEGATION, "ipairs(claims.absent or {})", "ipairs({})"),
    Mutant("any number of tools may act", DELEGATION, "if #path > MAX_HOPS then", "if false then"),
    Mutant(
        "a tool in its own right is told as a fan-out",
        DELEGATION,
        "if #path == 0 and claims.issuer == OURSELVES then",
        "if false then",
    ),
    Mutant(
        "a delegation's time is not asked for",
        VERIFY,
        '"clock_skew_seconds": _DELEGATION_SKEW_S',
        '"clock_skew_seconds": 2000000',
    ),
    Mutant(
        "escaped letters are left out",
        CLAIMS,
        "parts[#parts + 1], at = unicode_at(text, stop + 2)",
        "at = select(2, unicode_at(text, stop + 2))",
    ),
)

# Of what decides, and says what Envoy's rules are made of: the policy files then say something else.
OF_GOVERNANCE = (
    Mutant(
        "a domain's forbids are left out",
        RESIDUE,
        "        forbids=clauses((*own, *mesh), permit=False),",
        "        forbids=clauses(mesh, permit=False),",
    ),
    Mutant(
        "the mesh's forbids are left out of domains",
        RESIDUE,
        "        forbids=clauses((*own, *mesh), permit=False),",
        "        forbids=clauses(own or mesh, permit=False),",
    ),
    Mutant(
        "domains permit what the mesh does not",
        RESIDUE,
        "        permits=clauses(mesh, permit=True),",
        "        permits=clauses((*own, *mesh), permit=True),",
    ),
    Mutant("a domain's default is to inherit", RESIDUE, "if domain is None or domain.inherit", "if True"),
    Mutant("a permit without a value permits", RESIDUE, "otherwise=not rule.permit", "otherwise=True"),
    Mutant("a forbid without a value does not forbid", RESIDUE, "otherwise=not rule.permit", "otherwise=False"),
    Mutant(
        "shadow rules are enforced", RESIDUE, "rule.permit is permit and rule.shadow is shadow", "rule.permit is permit"
    ),
    Mutant("a rule's roles are left out", RESIDUE, "all_of(_has_role(rule.applies.roles), left)", "left"),
    Mutant("a rule asks for all of its roles", RESIDUE, "return any_of(*(Call(", "return all_of(*(Call("),
    Mutant(
        "clauses are kept whatever the tool",
        RESIDUE,
        'facts["tool", name]) for name in rule.reads',
        'facts["tool", "service"]) for name in rule.reads[:0]',
    ),
    Mutant("rules apply to every effect", RULE, "tool.effect in self.effects", "True"),
    Mutant("rules apply to every method", RULE, "(not self.methods or tool.method in self.methods)", "True"),
    Mutant("rules apply to every domain", RULE, "(not self.domains or tool.domain in self.domains)", "True"),
    Mutant(
        "rules about a method are not found",
        RULE,
        "product((tool.domain, _ANY), (tool.method, _ANY))",
        "product((tool.domain, _ANY), (_ANY,))",
    ),
    Mutant(
        "rules about a domain are not found",
        RULE,
        "product((tool.domain, _ANY), (tool.method, _ANY))",
        "product((_ANY,), (tool.method, _ANY))",
    ),
    Mutant("rules about a service are not found", RULE, "keys = [tool.service, *product", "keys = [*product"),
    Mutant(
        "what fails under not is not turned",
        EXPRESSION,
        "negation(fold(part, facts, otherwise=not otherwise))",
        "negation(fold(part, facts, otherwise=otherwise))",
    ),
    Mutant(
        "false decides a disjunction",
        EXPRESSION,
        '(all_of, FALSE) if function == "_&&_" else (any_of, TRUE)',
        "(all_of, FALSE) if function == '_&&_' else (any_of, FALSE)",
    ),
    Mutant(
        "choices are swapped",
        EXPRESSION,
        'return Call("_?_:_", (holds, *chosen))',
        'return Call("_?_:_", (holds, *reversed(chosen)))',
    ),
    Mutant(
        "the last rule by id is named",
        RESIDUE,
        "key=lambda clause: clause.rule)",
        "key=lambda clause: clause.rule, reverse=True)",
    ),
    Mutant(
        "nobody may do what anybody may",
        DECIDE,
        "somebody = _holds(SOMEBODY, facts, on_error=False)",
        "somebody = True",
    ),
    Mutant("a domain's permits are not asked", DECIDE, "own = residue.domain_permits is None or", "own = True or"),
)
