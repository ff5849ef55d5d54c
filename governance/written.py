"""An expression as people write it: CEL."""

from __future__ import annotations

import json

from governance.expression import Call, Const, Expression, Field

_INFIX = {
    "_||_": "||",
    "_&&_": "&&",
    "_==_": "==",
    "_!=_": "!=",
    "_<_": "<",
    "_<=_": "<=",
    "_>_": ">",
    "_>=_": ">=",
    "@in": "in",
}
_JOINING = ("_||_", "_&&_")


def written(expression: Expression) -> str:
    """The expression in CEL. What is compiled from it is equal to it."""
    match expression:
        case Const(value):
            return _constant(value)
        case Field(root, name):
            return f"{root}.{name}"
        case Call("!_", (part,)):
            return f"!{_operand(part)}"
        case Call("_?_:_", arguments):
            condition, then, otherwise = (_operand(each) for each in arguments)
            return f"{condition} ? {then} : {otherwise}"
        case _:
            return _called(expression)


def _called(call: Call) -> str:
    match call:
        case Call(function, (left, right)) if function in _INFIX:
            return f"{_operand(left, function)} {_INFIX[function]} {_operand(right, function)}"
        case Call("_[_]", (target, key)):
            return f"{written(target)}[{written(key)}]"
        case Call("size", (part,)):
            return f"size({written(part)})"
        case Call(function, (target, *rest)):
            return f"{_operand(target)}.{function}({', '.join(written(each) for each in rest)})"
        case _:
            raise TypeError(f"no operator of rules: {call}")


def _operand(expression: Expression, within: str = "") -> str:
    """The same, in brackets where it would be read otherwise without. within: the operator around it."""
    text = written(expression)
    if not isinstance(expression, Call) or (expression.function == within and within in _JOINING):
        return text
    infix = expression.function in _INFIX
    compares = infix and expression.function not in _JOINING
    if (compares and within in _JOINING) or not (infix or expression.function == "_?_:_"):
        return text
    return f"({text})"


def _constant(value: bool | int | str | tuple[str, ...]) -> str:  # noqa: FBT001 - a value, not a switch
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return _quoted(value)
        case tuple():
            return f"[{', '.join(_quoted(item) for item in value)}]"


def _quoted(text: str) -> str:
    quoted = json.dumps(text, ensure_ascii=False)
    return f"'{text}'" if quoted == f'"{text}"' and "'" not in text else quoted
