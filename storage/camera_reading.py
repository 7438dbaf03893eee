"""From the YAML of a camera to checked parts: templates filled in, every problem collected."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from skyloom.algorithms.vocabulary import OBSERVATION_TYPES
from skyloom.storage.camera_file import Problem, YamlDocument, suggestion
from skyloom.storage.camera_geometry import KeyPath, detector_problems
from skyloom.storage.camera_model import (
    Amplifier,
    Box,
    Detector,
    FileLayout,
    HeaderKey,
    HeaderMap,
)

__all__ = ["header_problems", "layout_problems", "read_detectors", "validated"]

Model = TypeVar("Model", bound=BaseModel)


def validated(
    model: type[Model], content: Any, path: KeyPath
) -> tuple[Model | None, list[Problem]]:
    """Return a part of the camera, or all that is wrong with it."""
    try:
        return model.model_validate(content), []
    except ValidationError as error:
        problems = []
        for item in error.errors():
            where = (*path, *item["loc"])
            if item["type"] == "extra_forbidden":
                known = _siblings(model, item["loc"])
                message = f"unknown key{suggestion(str(item['loc'][-1]), known)}"
            elif item["type"] == "missing":
                message = "missing"
            else:
                message = item["msg"].removeprefix("Value error, ")
                shown = repr(item["input"])
                message += f", not {shown}" if len(shown) < 60 else ""
            problems.append(Problem(where, message))
        return None, problems


def _siblings(model: type[BaseModel], loc: tuple[int | str, ...]) -> Iterable[str]:
    """Return the keys that could have stood where an unknown one does."""
    models: Mapping[str, type[BaseModel]] = {
        "amplifiers": Amplifier,
        "data": Box,
        "overscan": Box,
        "parallel_overscan": Box,
        "trimmed": Box,
        "segment": Box,
    }
    for part in reversed(loc[:-1]):
        if isinstance(part, str):
            inner = HeaderKey if model is HeaderMap else models.get(part, model)
            return inner.model_fields
    return model.model_fields


def read_detectors(
    document: YamlDocument, content: Mapping[str, Any]
) -> tuple[list[Detector], list[Problem]]:
    """Return the detectors with templates filled in, and all that is wrong with them."""
    templates = content.get("templates") or {}
    entries = content.get("detectors")
    if entries is None:
        return [], []
    if not isinstance(entries, list) or not isinstance(templates, dict):
        wrong_key = "templates" if isinstance(entries, list) else "detectors"
        return [], [Problem((wrong_key,), "must be a list of detectors, or a mapping of templates")]
    problems = [
        Problem(("templates", str(key)), "unknown key; templates are detectors or amplifiers")
        for key in templates
        if key not in ("detectors", "amplifiers")
    ]
    detectors: list[Detector] = []
    seen: dict[tuple[str, Any], int] = {}
    for index, entry in enumerate(entries):
        path: KeyPath = ("detectors", index)
        if not isinstance(entry, dict):
            problems.append(Problem(path, "a detector is a mapping of keys to values"))
            continue
        expanded, more = _expand(entry, templates, path)
        detector, wrong = validated(Detector, expanded, path)
        if detector:
            placed = tuple(amp.placed() for amp in detector.amplifiers)
            number = index if detector.id is None else detector.id
            detector = detector.model_copy(update={"amplifiers": placed, "id": number})
            wrong += detector_problems(detector, path)
            for what in ("name", "id"):
                key = (what, getattr(detector, what))
                if key in seen:
                    other = f"{what} {key[1]!r} is also that of detectors[{seen[key]}]"
                    wrong.append(Problem((*path, what), other))
                seen.setdefault(key, index)
            detectors.append(detector)
        problems += more
        problems += [_in_template(problem, entry, document) for problem in wrong]
    return detectors, problems


def _expand(
    entry: Mapping[str, Any], templates: Mapping[str, Any], path: KeyPath
) -> tuple[dict[str, Any], list[Problem]]:
    """Return a detector with its templates filled in."""
    expanded, problems = _filled(entry, templates.get("detectors"), path)
    overrides = expanded.pop("overrides", None) or {}
    amps = expanded.get("amplifiers")
    if not isinstance(amps, list) or not isinstance(overrides, dict):
        return expanded, problems
    filled = []
    for index, amp in enumerate(amps):
        if not isinstance(amp, dict):
            filled.append(amp)
            continue
        whole, more = _filled(amp, templates.get("amplifiers"), (*path, "amplifiers", index))
        whole.update(overrides.get(whole.get("name"), {}))
        filled.append(whole)
        problems += more
    names = [amp.get("name", "") for amp in filled if isinstance(amp, dict)]
    problems += [
        Problem((*path, "overrides", str(name)), f"no such amplifier{suggestion(str(name), names)}")
        for name in overrides
        if name not in names
    ]
    return {**expanded, "amplifiers": filled}, problems


def _filled(
    entry: Mapping[str, Any], templates: Any, path: KeyPath
) -> tuple[dict[str, Any], list[Problem]]:
    whole = dict(entry)
    name = whole.pop("template", None)
    if name is None:
        return whole, []
    known = templates if isinstance(templates, dict) else {}
    if not isinstance(known.get(name), dict):
        message = f"no template {name!r}{suggestion(str(name), known)}"
        return whole, [Problem((*path, "template"), message)]
    return {**known[name], **whole}, []


def _in_template(problem: Problem, entry: Mapping[str, Any], document: YamlDocument) -> Problem:
    """Return a problem at the place of the template it comes from, if it does."""
    path = problem.path
    name = entry.get("template")
    if path in document.lines or name is None or len(path) < 3:
        return problem
    inner: KeyPath = ("templates", "detectors", name, *path[2:])
    while inner[:4] in document.lines and inner not in document.lines:
        inner = inner[:-1]
    return Problem(inner, problem.message) if inner in document.lines else problem


def header_problems(header: HeaderMap | None) -> Iterator[Problem]:
    """Yield header keys that translate to what does not exist."""
    if header is None:
        return
    for value, meaning in header.observation_type.values.items():
        if meaning not in OBSERVATION_TYPES:
            known = ", ".join(OBSERVATION_TYPES)
            hint = suggestion(meaning, OBSERVATION_TYPES)
            yield Problem(
                ("header", "observation_type", "values", value),
                f"{meaning!r} is not an observation type ({known}){hint}",
            )
    if header.read_noise and not any("{amplifier}" in key for key in header.read_noise.key):
        yield Problem(("header", "read_noise"), "the key needs '{amplifier}' in it")


def layout_problems(layout: FileLayout, detectors: Iterable[Detector]) -> Iterator[Problem]:
    """Yield what a layout needs and detectors do not say."""
    if layout.file == "detector" and not layout.detector:
        yield Problem(("layout", "detector"), "one file per detector needs a key that names it")
    for index, detector in enumerate(detectors):
        path: KeyPath = ("detectors", index)
        if layout.hdu == "detector" and detector.hdu is None:
            yield Problem((*path, "hdu"), "missing: which HDU holds the detector")
        if layout.hdu == "amplifier":
            for number, amp in enumerate(detector.amplifiers):
                below = (*path, "amplifiers", number)
                if amp.hdu is None:
                    yield Problem((*below, "hdu"), f"missing: which HDU holds {amp.name}")
                if amp.segment is None:
                    yield Problem((*below, "segment"), f"missing: where the HDU of {amp.name} goes")
