"""YAML with line numbers: what a file says, and on which line it says it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

from skyloom.algorithms.errors import ConfigurationError

__all__ = ["Problem", "YamlDocument", "read_yaml", "report", "suggestion"]

Path: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and where."""

    path: Path
    message: str

    @property
    def where(self) -> str:
        """The path as text, such as ``detectors[2].shape``."""
        text = ""
        for part in self.path:
            text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
        return text


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """Plain content of a YAML file and the line on which each value stands."""

    source: str
    content: Any
    lines: dict[Path, int]
    problems: tuple[Problem, ...] = ()

    def line(self, path: Sequence[str | int]) -> int:
        """Return the line of a value, or of the nearest one that contains it."""
        found = tuple(path)
        while found and found not in self.lines:
            found = found[:-1]
        return self.lines.get(found, 1)


def read_yaml(text: str, source: str) -> YamlDocument:
    """Read safe YAML; keys that occur twice are problems.

    Parameters
    ----------
    text : str
        The YAML text.
    source : str
        File name, for messages.

    Raises
    ------
    ConfigurationError
        If it is not YAML; the message names the line.

    Examples
    --------
    >>> document = read_yaml("a: 1\\nb:\\n  - c: 2\\n", "file.yaml")
    >>> document.content, document.line(("b", 0, "c"))
    ({'a': 1, 'b': [{'c': 2}]}, 3)
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or str(error)
        raise ConfigurationError(f"{source}{line}: not YAML: {what}") from error
    lines: dict[Path, int] = {}
    problems: list[Problem] = []
    if root is not None:
        _walk(root, (), lines, problems)
    return YamlDocument(source, content, lines, tuple(problems))


def _walk(node: yaml.Node, path: Path, lines: dict[Path, int], problems: list[Problem]) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            below = (*path, str(key.value))
            if key.value in seen:
                problems.append(Problem(below, "this key occurs twice"))
            seen.add(key.value)
            lines[below] = key.start_mark.line + 1
            _walk(value, below, lines, problems)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(value, (*path, index), lines, problems)


def report(document: YamlDocument, problems: Iterable[Problem]) -> None:
    """Raise one `ConfigurationError` that lists all problems with their lines, if there are any.

    Examples
    --------
    >>> document = read_yaml("a: 1\\nb: 2\\n", "file.yaml")
    >>> report(document, [Problem(("b",), "is too large")])
    Traceback (most recent call last):
        ...
    skyloom.algorithms.errors.ConfigurationError: file.yaml has 1 problem:
      line 2: b: is too large
    """
    found = sorted({(document.line(p.path), p.where, p.message) for p in problems})
    if not found:
        return
    count = "1 problem" if len(found) == 1 else f"{len(found)} problems"
    lines = [
        f"\n  line {line}: {where}: {message}" if where else f"\n  line {line}: {message}"
        for line, where, message in found
    ]
    raise ConfigurationError(f"{document.source} has {count}:{''.join(lines)}")


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return a hint at the name that was probably meant, empty if none is close.

    Examples
    --------
    >>> suggestion("EXPTME", ["EXPTIME", "FILTER"])
    '; did you mean EXPTIME?'
    """
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""
