"""Rules' expressions as CEL text, made up by hypothesis, and facts to try them on."""

from __future__ import annotations

import json

from hypothesis import strategies as st

from governance.words import Caller, Tool

WORDS = ("", "a", "b", "ab", "support", "Ü😀")
LABELS = ("a", "language")

words = st.sampled_from(WORDS)
word_lists = st.lists(words, max_size=3).map(tuple)
sizes = st.integers(0, 4)
effects = st.integers(1, 3)

callers = st.builds(
    Caller, issuer=words, subject=words, roles=word_lists, domain=words, clearances=word_lists, actor=words
)
tools = st.builds(
    Tool,
    service=words,
    method=words,
    domain=words,
    effect=effects,
    stage=st.integers(1, 3),
    data_classes=word_lists,
    unclassified=st.booleans(),
    hidden=st.booleans(),
    needs_approval=st.booleans(),
    cost=st.integers(1, 3),
    labels=st.dictionaries(st.sampled_from(LABELS), words),
)

_literals = words.map(lambda text: json.dumps(text, ensure_ascii=False))
_caller_texts = st.sampled_from(["issuer", "subject", "domain", "actor"]).map("caller.{}".format)
_tool_texts = st.one_of(
    st.sampled_from(["service", "method", "domain"]).map("tool.{}".format),
    st.sampled_from(LABELS).map("tool.labels['{}']".format),
)
_caller_lists = st.sampled_from(["caller.roles", "caller.clearances"])
_literal_lists = st.lists(_literals, max_size=3).map(lambda items: f"[{', '.join(items)}]")
_comparisons = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
_tests = st.sampled_from(["startsWith", "endsWith", "contains"])


def _atoms(texts: st.SearchStrategy[str], lists: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.sampled_from(["true", "false"]),
        st.builds("{} {} {}".format, texts, _comparisons, texts),
        st.builds("{}.{}({})".format, texts, _tests, texts),
        st.builds("{} in {}".format, texts, lists),
        st.builds("size({}) {} {}".format, st.one_of(texts, lists), _comparisons, sizes),
    )


_tool_atoms = st.one_of(
    st.sampled_from(["tool.hidden", "tool.unclassified", "tool.needs_approval"]),
    st.builds("tool.{} {} {}".format, st.sampled_from(["effect", "stage", "cost"]), _comparisons, effects),
    st.builds("{} in tool.labels".format, _literals),
    st.builds("size(tool.labels) {} {}".format, _comparisons, sizes),
)


def _joined(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("({} && {})".format, parts, parts),
        st.builds("({} || {})".format, parts, parts),
        st.builds("!({})".format, parts),
        st.builds("({} ? {} : {})".format, parts, parts, parts),
    )


def _rules(atoms: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.recursive(atoms, _joined, max_leaves=6)


_of_tool = st.one_of(
    _tool_atoms,
    _atoms(st.one_of(_tool_texts, _literals), st.one_of(st.just("tool.data_classes"), _literal_lists)),
)
_of_caller = _atoms(st.one_of(_caller_texts, _literals), st.one_of(_caller_lists, _literal_lists))
_of_both = _atoms(
    st.one_of(_caller_texts, _tool_texts, _literals),
    st.one_of(_caller_lists, st.just("tool.data_classes"), _literal_lists),
)

about_tools = _rules(_of_tool)
about_callers = _rules(_of_caller)
about_both = _rules(st.one_of(_of_tool, _of_caller, _of_both))
