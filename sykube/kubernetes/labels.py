"""Labels and taints of nodes, as the API server takes them.

Source: kubernetes/kubernetes, staging/src/k8s.io/apimachinery/pkg/util/validation/validation.go and
pkg/apis/core/v1/helper/helpers.go
"""

from __future__ import annotations

import re

_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_DOMAIN = r"(?=.{1,253}/)[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?/"
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def problem(key: str, value: str) -> str:
    if not re.fullmatch(f"(?:{_DOMAIN})?{_NAME}", key):
        return f"{key!r} is not a label's key, such as tier or example.com/tier"
    ok = re.fullmatch(f"(?:{_NAME})?", value)
    return "" if ok else f"{value!r} is not a value of the label {key}"


def parse_taint(text: str) -> dict[str, str]:
    """A taint of a Node from KEY[=VALUE]:EFFECT, as `kubectl taint` takes it.

    Raises:
        ValueError: it is not that; says what is wrong.
    """
    pair, _, effect = text.rpartition(":")
    key, _, value = pair.partition("=")
    if effect not in _EFFECTS:
        raise ValueError(f"the taint {text!r} is not KEY=VALUE:EFFECT, with {', '.join(_EFFECTS)}")
    if wrong := problem(key, value):
        raise ValueError(f"the taint {text!r}: {wrong}")
    return {"key": key, "value": value, "effect": effect}
