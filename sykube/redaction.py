"""Redacts secrets from what strangers will read, such as a bug report.

Secrets are recognized by their form or by the name before them. What only looks like one is
redacted, too: a report that lacks a word is still of use.
"""

from __future__ import annotations

import re
from typing import Any

REDACTED = "REDACTED"

_KEY_END = re.compile(r"-----END [A-Z0-9 ]*PRIVATE KEY-----")
_NAMES = (
    r"pass(?:word|wd|phrase)|secret|token(?:-secret)?|credentials?|authorization"
    r"|(?:client-key|key)-data|(?:certificate|private|secret|access|api|encryption)[-_]?key"
)
# What follows a name and is no secret: the next line of an escaped text, a setting.
_NOTHING = r"(?!\\n|(?:true|false|null)(?![^\s\"',;}\]]))"
_VALUE = _NOTHING + r"""(?:\\?"(?:[^"\\\n]|\\[^"])*\\?"|'[^'\n]*'|[^\s"'{\[][^\s"']*)"""
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    # A private key in PEM, whatever is before its lines; one that is cut off, to the end.
    (
        re.compile(r"-----BEGIN ([A-Z0-9 ]*)PRIVATE KEY-----.*?(?:-----END \1PRIVATE KEY-----|\Z)",
                   re.DOTALL),
        f"{REDACTED} (private key)",
    ),
    # PEM in Base64, but for certificates, which are public.
    (re.compile(r"LS0tLS1CRUdJTi(?!BDRVJU)[A-Za-z0-9+/=_-]+"), f"{REDACTED} (private key)"),
    # JSON web tokens, as they are and in Base64.
    (re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?"), REDACTED),
    (re.compile(r"\bZXlK[A-Za-z0-9+/=_-]{40,}"), REDACTED),
    # Bootstrap tokens: https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/
    # Events are called NAME.0123456789abcdef, mostly with a dash in NAME.
    (re.compile(r"(?<![A-Za-z0-9.-])[a-z0-9]{6}\.[a-z0-9]{16}(?![A-Za-z0-9])"), REDACTED),
    # Of a proxy, whose scheme may be left out.
    (
        re.compile(r"(https?[-_]?proxy[\"']?[ \t]*[:= ][ \t]*[\"']?)(?!https?://)[^\s/\"']+@",
                   re.IGNORECASE),
        rf"\g<1>{REDACTED}@",
    ),
    # The user and password of a URL.
    (re.compile(r"(?<=://)[^\s/\"'@?#]+@"), f"{REDACTED}@"),
    (re.compile(r"(?<=://)[^\s/\"'@:]*:(?!\d+(?:[/\s\"']|$))[^\s\"']+@"), f"{REDACTED}@"),
    (re.compile(r"\b(bearer|basic)(\s+)[A-Za-z0-9+/=._~-]{8,}", re.IGNORECASE), rf"\1\2{REDACTED}"),
    # Named: client-key-data: …, "token": "…", DB_PASSWORD=…, --api-key … A name may end in these
    # words (dbPassword, auth-token), but not begin with them (secretName, tokenExpiration). Of a
    # line of YAML, all that follows goes.
    (
        re.compile(
            rf"^([ \t]*(?:- )?[\"']?[\w.-]*(?:{_NAMES})[\"']?:[ \t]+)(?![{{\[|>]){_NOTHING}.+$",
            re.IGNORECASE | re.MULTILINE,
        ),
        rf"\g<1>{REDACTED}",
    ),
    (
        re.compile(rf"((?:{_NAMES})\\?[\"']?[ \t]*[:=][ \t]*)(?!{REDACTED}){_VALUE}",
                   re.IGNORECASE),
        rf"\g<1>{REDACTED}",
    ),
    (
        re.compile(rf"(--?(?:[\w-]*[-_])?(?:{_NAMES})[ \t]+)(?!-|{REDACTED}){_VALUE}",
                   re.IGNORECASE),
        rf"\g<1>{REDACTED}",
    ),
)  # fmt: skip
_SECRET_NAME = re.compile(rf"(?:{_NAMES})$", re.IGNORECASE)
_SECRET_OPTION = re.compile(rf"--?(?:[\w-]*[-_])?(?:{_NAMES})", re.IGNORECASE)
# It repeats the whole object as the user wrote it.
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def text(content: str) -> str:
    content = _without_cut_key(content)
    for pattern, replacement in _RULES:
        content = pattern.sub(replacement, content)
    return content


def structure(value: Any) -> Any:
    """Parsed JSON without its secrets: environment variables and options of containers, too."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, list):
        items = [structure(item) for item in value]
        for number, item in enumerate(value[:-1]):
            if isinstance(item, str) and _SECRET_OPTION.fullmatch(item):
                items[number + 1] = REDACTED
        return items
    if not isinstance(value, dict):
        return value
    found = {key: structure(item) for key, item in value.items() if key != _LAST_APPLIED}
    for key, item in found.items():
        if isinstance(item, str) and _SECRET_NAME.search(key):
            found[key] = REDACTED
    if isinstance(found.get("value"), str) and _SECRET_NAME.search(str(found.get("name", ""))):
        found["value"] = REDACTED
    return found


def _without_cut_key(content: str) -> str:
    """Without the end of a private key whose start is in an older part of a rotated log."""
    end = _KEY_END.search(content)
    if end is None or "PRIVATE KEY-----" in content[: end.start()]:
        return content
    return f"{REDACTED} (private key){content[end.end() :]}"
