"""YAML for Kubernetes' own programs: what is text for them is text, and what is not is not."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import yaml

from sykube import documents
from tests.scalars import TEXTS

# YAML 1.2's core schema: what a plain scalar is that is not text (specification 10.3.2).
CORE = re.compile(
    r"(?:null|Null|NULL|~|)|true|True|TRUE|false|False|FALSE|[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"
    r"|[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)


@pytest.mark.parametrize("text", TEXTS)
def test_text_stays_text_for_every_reader(text: str) -> None:
    written = documents.dump({"key": text, text: "value"})
    assert documents.load(written) == {"key": text, text: "value"}
    assert yaml.safe_load(written) == {"key": text, text: "value"}, "a reader of YAML 1.1"
    node = yaml.compose(written, Loader=yaml.SafeLoader)
    assert isinstance(node, yaml.MappingNode)
    (_, scalar), (key, _) = node.value
    plain = [each.value for each in (scalar, key) if each.style is None]
    assert not any(CORE.fullmatch(each) for each in plain), "a reader of YAML 1.2"


@pytest.mark.parametrize("text", [each for each in TEXTS if each.isascii() and each.isprintable()])
def test_what_was_quoted_stays_text(text: str) -> None:
    quoted = "'" + text.replace("'", "''") + "'"
    again = documents.dump(documents.load(f"- {quoted}\n"))
    assert documents.load(again) == yaml.safe_load(again) == [text]


# As kubectl 1.36.2 reads them: `kubectl config view --raw -o json` of an extension that holds them.
@pytest.mark.parametrize(
    ("plain", "value"),
    [
        ("1:30", "1:30"),
        ("12:30:45", "12:30:45"),
        ("2001-01-01", "2001-01-01"),
        ("2001-13-45", "2001-13-45"),
        ("2001-01-01T10:00:00Z", "2001-01-01T10:00:00Z"),
        ("=", "="),
        ("<<", "<<"),
        ("NaN", "NaN"),
        ("0o", "0o"),
        ("0x", "0x"),
        ("08", 8.0),
        ("017", 15),
        ("0o17", 15),
        ("0x1F", 31),
        ("-0b11", -3),
        ("1_000", 1000),
        ("+1", 1),
        ("433e40", 433e40),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("y", True),
        ("N", False),
        ("Off", False),
        ("~", None),
        ("", None),
    ],
)
def test_what_is_not_quoted_is_read_as_kubectl_reads_it(plain: str, value: Any) -> None:
    (found,) = documents.load(f"- {plain}\n")
    assert found == value
    assert type(found) is type(value)
    assert documents.load(documents.dump([found])) == [value]


def test_not_a_number_is_a_number() -> None:
    (found,) = documents.load(documents.dump(documents.load("[.NaN]")))
    assert math.isnan(found)


def test_merge_keys_are_merged() -> None:
    assert documents.load("a: &a {x: 1}\nb:\n  <<: *a\n")["b"] == {"x": 1}


def test_empty_documents_of_a_stream_are_left_out() -> None:
    assert documents.load_all("---\na: 1\n---\n---\nb: 2\n") == [{"a": 1}, {"b": 2}]
