"""An option, declared once: a field of a dataclass with what is to be known of it.

The command line, the reader of the configuration file, the record of a cluster, manual pages and
the table in docs/ are made from that.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sykube import stored
from sykube.patches import Patch, PatchError

if TYPE_CHECKING:
    # It takes longer to import than most commands take; they read no file.
    import yaml

_TAG = "tag:yaml.org,2002:"


class Document:
    """A configuration file while it is read.

    Attributes:
        problems: what is wrong with it, by line.
        warnings: what has no effect, with the first line of it.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.problems: list[tuple[int, str]] = []
        self.warnings: dict[str, int] = {}

    def ignored(self, node: yaml.Node, text: str) -> None:
        """Note what has no effect."""
        self.warnings.setdefault(text, line_of(node))

    def wrong(self, node: yaml.Node, error: object) -> None:
        """Note what is wrong with a value; in a literal block, a patch has lines of its own."""
        inner = error.line if isinstance(error, PatchError) else 0
        literal = getattr(node, "style", "") == "|"
        self.problems.append((line_of(node) + (inner if literal else 0), str(error)))


# These are no dataclasses, which take a millisecond each of every command.
class Type(NamedTuple):
    """How the values of an option are written.

    Attributes:
        name: for people.
        read: its value in a file; ValueError says what is wrong with it, without the key.
        parse: its value on the command line; ValueError, too.
        many: on the command line, it is given several times.
    """

    name: str
    read: Callable[[yaml.Node, Document], Any]
    parse: Callable[[Any], Any] = lambda given: given
    many: bool = False


class Setting(NamedTuple):
    """An option.

    Attributes:
        default: of the field.
        help: a sentence.
        flags: of the command line; none where only a file can give it.
        type: how it is written.
        key: of the configuration file.
        metavar: what stands for its value in help.
        shown: the default as people read it.
        choices: all that it can be; empty for anything that `check` takes.
        check: what is wrong with a value, or nothing.
        variable: of the environment, which stands in where neither command line nor file has it;
            before the file where `variable_first`.
        completion: name in sykube.cli.completion of what a shell offers.
        later: the command that changes it in a cluster that is there; empty where none does.
        transient: it is about making a cluster, and nothing of one that is there.
    """

    default: Any
    help: str
    flags: tuple[str, ...]
    type: Type
    key: str = ""
    metavar: str = ""
    shown: str = ""
    choices: tuple[str, ...] = ()
    check: Callable[[Any], str] = lambda _value: ""
    variable: str = ""
    variable_first: bool = False
    completion: str = ""
    later: str = ""
    transient: bool = False


def setting(default: Any, help: str, *flags: str, **known: Any) -> Any:  # noqa: A002
    """A field of a dataclass that is an option.

    Args:
        known: further attributes of `Setting`.
    """
    key, choices = known.pop("key", ""), known.get("choices")
    if choices:
        known["check"] = lambda value: _unknown(value, choices)
    known.setdefault("type", _TYPES.get(default.__class__))
    known.setdefault("shown", str(default) if default and isinstance(default, str | int) else "")
    metadata = {"setting": Setting(default, help, flags, **known), "key": key}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@functools.cache
def of(cls: Any) -> Mapping[str, Setting]:
    """The options that are declared in a dataclass, by the names of their fields."""
    return {
        each.name: each.metadata["setting"]._replace(key=stored.key(each))
        for each in dataclasses.fields(cls)
    }


@functools.cache
def by_key(cls: Any) -> Mapping[str, tuple[str, Setting]]:
    """The options that are declared in a dataclass, and their fields, by the keys of the file."""
    return {declared.key: (name, declared) for name, declared in of(cls).items()}


def read(
    cls: Any, root: yaml.Node, document: Document, fixed: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], dict[str, int]]:
    """Values and line numbers of a mapping in a file, by field; `document` gets what is wrong.

    Args:
        fixed: keys that can have one value only.

    Raises:
        ValueError: it is no mapping.
    """
    import yaml

    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    known, fixed = by_key(cls), fixed or {}
    if not isinstance(root, yaml.MappingNode):
        raise ValueError(f"a mapping is needed here, of {', '.join(known)}")
    for key, (key_node, node) in fields(root, (*known, *fixed), document).items():
        try:
            if key in fixed:
                if (value := _plain(node)) != fixed[key]:
                    document.wrong(key_node, f"{key} must be {fixed[key]!r}, not {value!r}")
            else:
                name, declared = known[key]
                lines[name] = line_of(key_node)
                values[name] = declared.type.read(node, document)
        except yaml.YAMLError as error:
            text = " ".join(str(error).split())
            document.wrong(key_node, f"the value of {key!r} cannot be read: {text}")
        except PatchError as error:
            document.wrong(node, error)
        except ValueError as error:
            document.wrong(key_node, f"{key} {error}")
    return values, lines


def fields(
    root: yaml.MappingNode, known: Iterable[str], document: Document
) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """The nodes of key and value of a mapping's known keys; `document` gets what is wrong.

    YAML's merge keys (`<<`) are followed.
    """
    import difflib

    import yaml

    known = [*known]
    own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for key_node, node in root.value:
        key = str(key_node.value)
        if key in own:
            document.wrong(key_node, f"the key {key!r} stands here for the second time")
        elif key not in (*known, "<<"):
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            document.wrong(key_node, f"unknown key {key!r}{hint}")
        own.setdefault(key, (key_node, node))
    try:
        yaml.SafeLoader("").flatten_mapping(root)
    except yaml.YAMLError:
        document.wrong(own["<<"][0], "the key '<<' needs a mapping, or a list of them")
    merged = {str(key_node.value): (key_node, node) for key_node, node in root.value}
    return {key: pair for key, pair in (merged | own).items() if key in known}


def several(item: Type, name: str) -> Type:
    """A list of values, each wrong or right by itself."""

    def read_all(node: yaml.Node, document: Document) -> tuple[Any, ...]:
        import yaml

        if not _is(node, "sequence"):
            raise ValueError(f"must be a {name}")
        found = []
        for each in node.value:
            try:
                found.append(item.read(each, document))
            except (yaml.YAMLError, ValueError) as error:
                document.wrong(each, error)
        return tuple(found)

    return Type(
        name,
        read_all,
        lambda given: tuple(map(item.parse, given)),
        many=True,
    )


def objects(cls: Any) -> Type:
    """A list of mappings, with options that are declared in a dataclass of their own."""

    def read_one(node: yaml.Node, document: Document) -> Any:
        values, lines = read(cls, node, document)
        made = cls(**values)
        for name, declared in of(cls).items():
            # What could not be read was told of.
            told = name in lines and name not in values
            if not told and (problem := declared.check(getattr(made, name))):
                document.problems.append((lines.get(name, line_of(node)), problem))
        return made

    return several(Type("mapping", read_one), "list of mappings")


def patch(parsed: Callable[[str], Any]) -> Type:
    """A patch: a text, or a mapping of YAML; a file on the command line.

    Args:
        parsed: reads one; PatchError says what is wrong with it.
    """

    def read_one(node: yaml.Node, document: Document) -> Patch:
        import yaml

        text = yaml.serialize(node) if _is(node, "mapping") else _text(node, document)
        parsed(text)
        return Patch(text, f"{document.file}:{line_of(node)}")

    def parse(file: str) -> Patch:
        try:
            text = Path(file).read_text(encoding="utf-8")
            parsed(text)
        except OSError as error:
            raise ValueError(f"cannot read {file}: {error.strerror}") from error
        except PatchError as error:
            raise ValueError(f"{file}:{error.line or 1}: {error}") from error
        return Patch(text, f"{file}:1")

    return Type("patch", read_one, parse)


def patches(parsed: Callable[[str], Any]) -> Type:
    """A list of patches; see `patch`."""
    return several(patch(parsed), "list of patches")


def pairs(convert: Callable[[str], Any], name: str) -> Type:
    """A mapping of names to values; NAME=VALUE,... on the command line.

    Args:
        convert: what a value is; ValueError says what it must be.
    """

    def read_all(node: yaml.Node, _document: Document) -> dict[str, Any]:
        found = node.value if _is(node, "mapping") else [(node, node)]
        if not all(_is(each, "scalar") for pair in found for each in pair):
            raise ValueError(f"must be a {name}")
        return {str(key.value): convert(value.value) for key, value in found}

    def parse(given: tuple[str, ...]) -> dict[str, Any]:
        parts = [part.strip().partition("=") for part in ",".join(given).split(",")]
        if not all(name and equals for name, equals, _ in parts):
            raise ValueError("must be NAME=VALUE, separated by commas")
        return {name: convert(value) for name, _, value in parts}

    return Type(name, read_all, parse, many=True)


def texts(split: Callable[[str], tuple[str, ...]]) -> Type:
    """A list of texts, or one text, which is split."""

    def read_all(node: yaml.Node, _document: Document) -> tuple[str, ...]:
        value = _plain(node)
        return split(value) if isinstance(value, str) else _texts(node, _document)

    return Type("text or list of texts", read_all, split)


def split_words(text: str) -> tuple[str, ...]:
    """A text's words as a shell splits them.

    Raises:
        ValueError: it cannot.
    """
    import shlex

    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise ValueError(f"{text!r} cannot be split into words: {error}") from error


def _unknown(value: str, choices: tuple[str, ...]) -> str:
    return "" if value in choices else f"there is no {value!r}; there are: {', '.join(choices)}"


def _is(node: Any, kind: str) -> bool:
    return bool(node.id == kind)


def line_of(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _plain(node: yaml.Node) -> Any:
    import yaml

    return yaml.SafeLoader("").construct_document(node)


def _of(kind: type, words: str) -> Callable[[yaml.Node, Document], Any]:
    def read_one(node: yaml.Node, _document: Document) -> Any:
        value = _plain(node)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ValueError(f"must be {words}")
        return value

    return read_one


def _as_written(node: yaml.Node, _document: Document) -> str:
    # YAML would take 1.30 for the number 1.3.
    if not _is(node, "scalar"):
        raise ValueError("must be a text")
    return str(node.value)


def _quantity(node: yaml.Node, _document: Document) -> str:
    # YAML takes 2 and 1.5 for numbers, and Kubernetes takes both for quantities.
    if node.tag.removeprefix(_TAG) not in ("str", "int", "float"):
        raise ValueError("must be a number or a text")
    return str(node.value)


def _texts(node: yaml.Node, _document: Document) -> tuple[str, ...]:
    value = _plain(node)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("must be a list of texts")
    return tuple(value)


def _absolute(path: str) -> str:
    return str(Path(path).absolute()) if path else ""


def _absolutes(paths: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(_absolute, paths))


_text = _of(str, "a text")
TEXT = Type("text", _text)
NUMBER = Type("whole number", _of(int, "a whole number"))
SWITCH = Type("true or false", _of(bool, "true or false"))
VERSION = Type("text", _as_written)
QUANTITY = Type("number or text", _quantity)
PATH = Type("absolute path", _text, _absolute)
TEXTS = Type("list of texts", _texts, tuple, many=True)
PATHS = Type("list of absolute paths", _texts, _absolutes, many=True)
# A dataclass' fields have defaults that are texts, numbers, and so on, for which these are meant.
_TYPES = {str: TEXT, int: NUMBER, bool: SWITCH, tuple: TEXTS, dict: pairs(str, "mapping of texts")}
