"""The tables of docs/configuration.md, from where options are declared: python -m tests.options_table"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sykube import settings
from sykube.cluster.model.spec import ClusterSpec, NodeSpec
from sykube.kubernetes.kubeadm_patches import JsonPatch

FILE = Path(__file__).parents[1] / "docs/configuration.md"
_TABLES = {"cluster": ClusterSpec, "nodes": NodeSpec, "json-patches": JsonPatch}


def page() -> str:
    """The page with its tables as they must be."""
    text = FILE.read_text(encoding="utf-8")
    for name, cls in _TABLES.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, _, rest = text.partition(start)
        text = f"{before}{start}{_table(cls)}{end}{rest.partition(end)[2]}"
    return text


def _table(cls: Any) -> str:
    has_flags = cls is ClusterSpec
    head = ["Key", "Value", "Default", "Meaning"]
    head[1:1] = ["Option"] if has_flags else []
    head += ["Variable", "Changed later by"] if has_flags else []
    lines = [head, ["-"] * len(head)]
    for declared in settings.of(cls).values():
        value = ", ".join(declared.choices) or declared.type.name
        line = [f"`{declared.key}`", value, declared.shown, declared.help]
        line[1:1] = [" ".join(f"`{flag}`" for flag in declared.flags)] if has_flags else []
        line += [_code(declared.variable), _code(declared.later)] if has_flags else []
        lines.append([cell.replace("|", "\\|") for cell in line])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


if __name__ == "__main__":
    FILE.write_text(page(), encoding="utf-8")
