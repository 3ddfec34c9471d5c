"""Selectors of labels as objects have them (LabelSelector of meta/v1).

Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#resources-that-support-set-based-requirements
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..api import Json

Labels = Mapping[str, str]
_KEYS = {"matchLabels", "matchExpressions"}
# Of a key that objects lack, NotIn is true.
_OPERATORS: dict[str, Callable[[str | None, Sequence[str]], bool]] = {
    "In": lambda value, values: value is not None and value in values,
    "NotIn": lambda value, values: value is None or value not in values,
    "Exists": lambda value, _: value is not None,
    "DoesNotExist": lambda value, _: value is None,
}


def problem(selector: Json) -> str:
    """What of a selector `matches` does not know, or nothing."""
    if unknown := sorted(selector.keys() - _KEYS):
        return f"has the unknown field {unknown[0]}"
    for each in selector.get("matchExpressions") or ():
        if each.get("operator") not in _OPERATORS:
            return f"has the unknown operator {each.get('operator')!r}"
    return ""


def matches(selector: Json, labels: Labels) -> bool:
    """Whether a selector without a problem selects what has these labels; an empty one does."""
    wanted = (selector.get("matchLabels") or {}).items()
    return all(labels.get(key) == value for key, value in wanted) and all(
        _OPERATORS[each["operator"]](labels.get(each["key"]), each.get("values") or ())
        for each in selector.get("matchExpressions") or ()
    )
