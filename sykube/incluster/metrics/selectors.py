"""Selectors of labels and fields as the API takes them in queries.

Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#api
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

Selector = Callable[[Mapping[str, str]], bool]

_KEY = r"[A-Za-z0-9][-A-Za-z0-9_./]*"
_VALUE = r"[-A-Za-z0-9_.]*"
_SET = re.compile(rf"({_KEY})\s+(in|notin)\s*\(([^()]*)\)")
_EQUAL = re.compile(rf"({_KEY})\s*(==|=|!=)\s*({_VALUE})")
_THERE = re.compile(rf"(!?)\s*({_KEY})")
# A comma that is not within the values of a set.
_COMMA = re.compile(r",(?![^()]*\))")


class SelectorError(ValueError):
    """A text is no selector."""


def parse(text: str) -> Selector:
    """What a selector says of the labels of an object; an empty one takes all.

    Raises:
        SelectorError: it is none.
    """
    parts = [_requirement(part.strip()) for part in _COMMA.split(text)] if text.strip() else []
    return lambda labels: all(part(labels) for part in parts)


def _requirement(text: str) -> Selector:
    if found := _SET.fullmatch(text):
        key, operator, listed = found.groups()
        values = [value.strip() for value in listed.split(",")]
        if not all(re.fullmatch(_VALUE, value) for value in values):
            raise SelectorError(f"unable to parse requirement: {text!r}")
        if operator == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if found := _EQUAL.fullmatch(text):
        key, operator, value = found.groups()
        if operator == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found := _THERE.fullmatch(text):
        negated, key = found.groups()
        return lambda labels: (key in labels) is not bool(negated)
    raise SelectorError(f"unable to parse requirement: {text!r}")
