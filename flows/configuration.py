"""Configuration files: YAML in, a checked model out, every problem at once with its line.

A file holds only what differs from the defaults. Unknown keys are errors, with the name that was
probably meant; so are keys given twice. Single values can be set on top: ``extract.lags=8``.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from skyloom.algorithms.errors import ConfigurationError

__all__ = ["configuration_from", "default_text", "load_configuration", "model_text"]

Model = TypeVar("Model", bound=BaseModel)
Place: TypeAlias = tuple[str | int, ...]


def load_configuration(
    model: type[Model], file: Path | None = None, overrides: Sequence[str] = ()
) -> Model:
    """Return a model from a YAML file and overrides.

    Parameters
    ----------
    model : type
        A pydantic model with ``extra="forbid"``.
    file : path, optional
        YAML file; the defaults without one.
    overrides : sequence of str
        ``dotted.path=value`` items, applied after the file; values are YAML.

    Raises
    ------
    ConfigurationError
        Listing every problem with file, line and dotted path.

    Examples
    --------
    >>> from skyloom.flows.scheduler import Threads
    >>> load_configuration(Threads, overrides=["threads=4"]).threads
    4
    >>> load_configuration(Threads, overrides=["treads=4"])
    Traceback (most recent call last):
        ...
    skyloom.algorithms.errors.ConfigurationError: the configuration has 1 problem:
      --set treads: unknown key; did you mean 'threads'?
    """
    content: Any = {}
    lines: dict[Place, int] = {}
    problems: list[str] = []
    if file is not None:
        content, lines, problems = _read(file)
    sources = {place: f"{file}:{line}" for place, line in lines.items()}
    for override in overrides:
        content = _override(content, override, sources, problems)
    return _validated(model, content, sources, file, problems)


def configuration_from(model: type[Model], content: Mapping[str, Any]) -> Model:
    """Return a model from nested mappings, as Python users give it.

    Parameters
    ----------
    model : type
        A pydantic model with ``extra="forbid"``.
    content : mapping
        What differs from the defaults.

    Raises
    ------
    ConfigurationError
        Listing every problem with its dotted path.

    Examples
    --------
    >>> from skyloom.flows.scheduler import Threads
    >>> configuration_from(Threads, {"threads": 2}).threads
    2
    """
    return _validated(model, content, {}, None, [])


def _validated(
    model: type[Model],
    content: Any,
    sources: Mapping[Place, str],
    file: Path | None,
    problems: list[str],
) -> Model:
    found: Model | None = None
    try:
        found = model.model_validate(content)
    except ValidationError as error:
        problems = problems + [
            _sentence(model, item, content, sources, file) for item in error.errors()
        ]
    if problems or found is None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise ConfigurationError(f"the configuration has {count}:{listed}")
    return found


def _read(file: Path) -> tuple[Any, dict[Place, int], list[str]]:
    """Return a file's content, the line of every key, and keys given twice."""
    try:
        text = file.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        detail = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(f"cannot read {file}: {detail}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{file} is not YAML: {error}") from error
    if node is None:
        return {}, {}, []
    lines: dict[Place, int] = {}
    problems: list[str] = []
    _walk(node, (), lines, problems, file)
    if not isinstance(node, yaml.MappingNode):
        raise ConfigurationError(f"{file} must hold `name: value` lines at its top level")
    return yaml.safe_load(text), lines, problems


def _walk(
    node: yaml.Node, place: Place, lines: dict[Place, int], problems: list[str], file: Path
) -> None:
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for i, child in enumerate(node.value):
            _walk(child, (*place, i), lines, problems, file)
    elif isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            inner = (*place, key.value)
            line = key.start_mark.line + 1
            if inner in lines:
                problems.append(
                    f"{file}:{line} {_dotted(inner)}: given twice, first in line {lines[inner]}"
                )
            lines[inner] = line
            _walk(child, inner, lines, problems, file)


def _override(content: Any, override: str, sources: dict[Place, str], problems: list[str]) -> Any:
    """Return content with one ``dotted.path=value`` set."""
    path, equals, text = override.partition("=")
    names = path.strip().split(".")
    if not equals or not all(names):
        problems.append(f"--set {override}: must be dotted.path=value")
        return content
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        problems.append(f"--set {override}: the value is not YAML: {error}")
        return content
    root = dict(content)
    node = root
    for i, name in enumerate(names[:-1], 1):
        inner = node.get(name)
        node[name] = dict(inner) if isinstance(inner, Mapping) else {}
        node = node[name]
        sources.setdefault(tuple(names[:i]), f"--set {path}")
    node[names[-1]] = value
    sources[tuple(names)] = "--set"
    return root


def _dotted(place: Iterable[str | int]) -> str:
    return ".".join(map(str, place))


def _sentence(
    model: type[BaseModel], item: Any, content: Any, sources: Mapping[Place, str], file: Path | None
) -> str:
    """Return one problem of a validation as a sentence with its place."""
    place = _in_content(tuple(item["loc"]), content, item["type"] == "missing")
    known = place
    while known and known not in sources:
        known = known[:-1]
    if known and item["type"] not in {"extra_forbidden", "missing"}:
        place = known  # what follows names the alternatives of a union
    source = sources.get(known, str(file) if file else "")
    if item["type"] == "extra_forbidden":
        message = f"unknown key{_suggestion(model, tuple(item['loc']))}"
    elif item["type"] == "missing":
        message = "missing"
    else:
        message = f"{item['msg']}, got {item['input']!r}"
    return f"{source} {_dotted(place)}: {message}".lstrip()


def _in_content(place: Place, content: Any, missing: bool) -> Place:
    """Return a place without the names of alternatives that pydantic puts into it."""
    found: Place = ()
    node = content
    for i, name in enumerate(place):
        there = _is_in(name, node)
        if there or (missing and i == len(place) - 1):
            found = (*found, name)
        if there:
            node = node[name]
    return found


def _is_in(name: str | int, node: Any) -> bool:
    if isinstance(node, Mapping):
        return name in node
    return isinstance(node, list | tuple) and isinstance(name, int) and name < len(node)


def _suggestion(model: type[BaseModel], place: Place) -> str:
    chosen = _models_at(model, place[:-1])
    fields = [name for candidate in chosen for name in candidate.model_fields]
    close = difflib.get_close_matches(str(place[-1]), fields, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    others = [
        other
        for other in _models_at(model, place[:-2])
        if other not in chosen and place[-1] in other.model_fields
    ]
    for other in others:
        for key, name in _tags(other).items():
            if place[-2] != name:
                return f" of {key} {place[-2]}: it is one of {key} {name}"
    return f"; known are {', '.join(fields)}" if fields else ""


def _models_at(model: type[BaseModel], place: Place) -> list[type[BaseModel]]:
    """Return the models that are nested at a place; of alternatives, the one that it names."""
    found: list[type[BaseModel]] = [model]
    for name in place:
        inner = []
        for candidate in found:
            if "root" in candidate.model_fields:  # a choice between models
                inner += [
                    choice
                    for choice in _models_in(candidate.model_fields["root"].annotation)
                    if name in _tags(choice).values()
                ]
            elif name in candidate.model_fields:
                inner += _models_in(candidate.model_fields[str(name)].annotation)
            elif isinstance(name, int) or name in _tags(candidate).values():
                inner.append(candidate)
        found = inner or found
    return found


def _tags(model: type[BaseModel]) -> dict[str, str]:
    """Return the fields that tell alternatives apart, with the only value that each may have."""
    return {
        name: str(field.default)
        for name, field in model.model_fields.items()
        if typing.get_origin(field.annotation) is typing.Literal
        and typing.get_args(field.annotation) == (field.default,)
    }


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in typing.get_args(annotation) for model in _models_in(inner)]


def model_text(model: BaseModel) -> str:
    """Return a configuration as the YAML file that would give it.

    Examples
    --------
    >>> from skyloom.flows.scheduler import Threads
    >>> print(model_text(Threads(threads=2)))
    kind: threads
    threads: 2
    memory_limit: null
    <BLANKLINE>
    """
    return str(yaml.safe_dump(model.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def default_text(model: type[BaseModel]) -> str:
    """Return a YAML file with every default, each with its meaning as a comment.

    Examples
    --------
    >>> from skyloom.flows.scheduler import Threads
    >>> print(default_text(Threads).splitlines()[2])
    # tasks at a time; as many as cores and memory allow if not given
    """
    return "\n".join(_default_lines(model, model().model_dump(mode="json"), "")) + "\n"


def _default_lines(model: type[BaseModel], values: Mapping[str, Any], indent: str) -> list[str]:
    lines = []
    for name, field in model.model_fields.items():
        if field.description:
            lines.append(f"{indent}# {' '.join(field.description.split())}")
        nested = _models_in(field.annotation)
        # A mapping to models, such as bands by name, may be empty and is no model itself.
        if (
            nested
            and isinstance(values[name], Mapping)
            and set(values[name]) <= {*nested[0].model_fields}
            and values[name]
        ):
            lines.append(f"{indent}{name}:")
            lines += _default_lines(nested[0], values[name], indent + "  ")
        else:
            text = yaml.safe_dump(values[name], default_flow_style=True, width=1 << 20)
            value = text.removesuffix("...\n").strip()
            lines.append(f"{indent}{name}: {value}")
    return lines
