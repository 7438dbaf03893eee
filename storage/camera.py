"""Cameras: read from YAML, checked as a whole, handed out as datasets.

A camera file lists its detectors; ``templates`` keep identical ones short. Every problem in a
file is found in one reading and reported with its line.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import xarray as xr
from pydantic import BaseModel, Field, PrivateAttr, ValidationError

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import ConfigurationError
from skyloom.algorithms.parameters import Parameters
from skyloom.storage.camera_file import Problem, YamlDocument, read_yaml, report, suggestion
from skyloom.storage.camera_model import (
    Amplifier,
    Box,
    Detector,
    FileLayout,
    HeaderKey,
    HeaderMap,
)

__all__ = ["Camera", "camera_names", "load_camera", "parse_camera"]

Model = TypeVar("Model", bound=BaseModel)
Path_ = tuple[str | int, ...]
_TOP = ("name", "description", "pixel_type", "layout", "header", "templates", "detectors")


class Camera(Parameters):
    """A camera: what its files and pixels mean."""

    name: str = Field(min_length=1, description="name of the camera")
    description: str = Field("", description="one line about it")
    pixel_type: Literal["auto", "uint16", "int32", "float32"] = Field(
        "auto", description="pixel type of the store; auto: that of the first file"
    )
    layout: FileLayout = Field(default_factory=FileLayout, description="how files hold exposures")
    header: HeaderMap = Field(description="which header values are read")
    detectors: tuple[Detector, ...] = Field(min_length=1, description="the detectors")

    _text: str = PrivateAttr("")

    @property
    def text(self) -> str:
        """The YAML the camera was read from."""
        return self._text

    @cached_property
    def _by_name(self) -> dict[str, Detector]:
        return {detector.name: detector for detector in self.detectors}

    def detector(self, name: str) -> Detector:
        """Return one detector.

        Raises
        ------
        KeyError
            If the camera does not have it.
        """
        try:
            return self._by_name[name]
        except KeyError:
            names = list(self._by_name)
            hint = suggestion(str(name), names) or f"; it has {', '.join(names[:8])}"
            raise KeyError(f"camera {self.name} has no detector {name!r}{hint}") from None

    def detector_names(self) -> list[str]:
        """Return the names of the detectors, in the order of the file."""
        return list(self._by_name)

    def amplifier_names(self, detector: str | None = None) -> list[str]:
        """Return the amplifiers of a detector, or the different names of all of them.

        Examples
        --------
        >>> load_camera("simulated-mosaic").amplifier_names()
        ['A', 'B', 'C', 'D']
        """
        chosen = self.detectors if detector is None else (self.detector(detector),)
        return list(dict.fromkeys(amp.name for each in chosen for amp in each.amplifiers))

    def amplifiers(self, detector: str) -> xr.Dataset:
        """Return the amplifiers of one detector.

        Parameters
        ----------
        detector : str
            Name of the detector.

        Returns
        -------
        Dataset
            Over ``amp``: int32 half-open boxes ``data_*``, ``overscan_*`` and
            ``parallel_overscan_*`` in raw pixels, ``y_start`` to ``x_stop`` in trimmed pixels;
            bool ``flip_x``, ``flip_y``; ``gain`` (electron/adu), ``read_noise`` (electron),
            ``saturation`` (adu, NaN = unknown). Attribute ``detector``.

        Raises
        ------
        KeyError
            If the camera does not have the detector.

        Examples
        --------
        >>> amplifiers = load_camera("simulated-mosaic").amplifiers("S00")
        >>> amplifiers.data_x_start.values.tolist()
        [0, 288, 0, 288]
        """
        found = self.detector(detector)
        amps = found.amplifiers
        trimmed = trimmed_boxes(found)
        columns: dict[str, Any] = {}
        boxes = {
            "data_": [amp.data for amp in amps],
            "overscan_": [amp.overscan for amp in amps],
            "parallel_overscan_": [amp.parallel_overscan for amp in amps],
            "": [trimmed[amp.name] for amp in amps],
        }
        for prefix, group in boxes.items():
            for axis in ("y", "x"):
                for end, part in enumerate(("start", "stop")):
                    values = np.array([getattr(box, axis)[end] for box in group], np.int32)
                    columns[f"{prefix}{axis}_{part}"] = ((v.AMP,), values, {"units": "pixel"})
        for name in ("flip_x", "flip_y"):
            columns[name] = ((v.AMP,), np.array([getattr(amp, name) for amp in amps], bool))
        units = {"gain": v.ELECTRON_PER_ADU, "read_noise": v.ELECTRON, "saturation": v.ADU}
        for name, unit in units.items():
            values = np.array([getattr(amp, name) for amp in amps], np.float64)  # None -> NaN
            columns[name] = ((v.AMP,), values, {"units": unit})
        names = [amp.name for amp in amps]
        return xr.Dataset(columns, coords={v.AMP: names}, attrs={"detector": found.name})


def trimmed_boxes(detector: Detector) -> dict[str, Box]:
    """Return where each amplifier's data lie once all other pixels are cut away.

    Parameters
    ----------
    detector : Detector
        The detector; boxes its file gives are kept.

    Returns
    -------
    dict of str to Box
        By amplifier name. A row (column) of the trimmed detector is one that belongs to some
        amplifier's data.

    Examples
    --------
    >>> detector = load_camera("simulated-mosaic").detector("S00")
    >>> str(trimmed_boxes(detector)["D"])
    'y [256, 512) x [256, 512)'
    """
    rows = np.zeros(detector.shape[0] + 1, int)
    columns = np.zeros(detector.shape[1] + 1, int)
    for amp in detector.amplifiers:
        rows[amp.data.y[0] + 1 : amp.data.y[1] + 1] = 1
        columns[amp.data.x[0] + 1 : amp.data.x[1] + 1] = 1
    row, column = np.cumsum(rows), np.cumsum(columns)
    return {
        amp.name: amp.trimmed
        or Box(
            y=(int(row[amp.data.y[0]]), int(row[amp.data.y[1]])),
            x=(int(column[amp.data.x[0]]), int(column[amp.data.x[1]])),
        )
        for amp in detector.amplifiers
    }


def camera_names() -> list[str]:
    """Return the names of the cameras that come with skyloom.

    Examples
    --------
    >>> camera_names()
    ['decam', 'generic', 'simulated-mosaic']
    """
    folder = files("skyloom.storage") / "cameras"
    return sorted(item.name[:-5] for item in folder.iterdir() if item.name.endswith(".yaml"))


def load_camera(name_or_path: str | os.PathLike[str]) -> Camera:
    """Return a camera by the name it comes with, or from a file.

    Parameters
    ----------
    name_or_path : str or path
        One of `camera_names`, or a YAML file.

    Raises
    ------
    ConfigurationError
        If there is no such camera or file, or something in it is wrong; the message lists
        every problem with its line.

    Examples
    --------
    >>> load_camera("decam").detector("S1").shape
    (4146, 2160)
    """
    text = os.fspath(name_or_path)
    if text in camera_names():
        resource = files("skyloom.storage") / "cameras" / f"{text}.yaml"
        return parse_camera(resource.read_text(encoding="utf-8"), f"{text}.yaml")
    try:
        return parse_camera(Path(text).expanduser().read_text(encoding="utf-8"), text)
    except (OSError, UnicodeDecodeError) as error:
        names = ", ".join(camera_names())
        hint = suggestion(text, camera_names())
        raise ConfigurationError(
            f"no camera {text!r}{hint}: give the path of a YAML file or one of {names} ({error})"
        ) from error


def parse_camera(text: str, source: str) -> Camera:
    """Return the camera that a YAML text describes.

    Parameters
    ----------
    text : str
        The YAML text.
    source : str
        Where it comes from, for messages.

    Raises
    ------
    ConfigurationError
        With every problem and its line.

    Examples
    --------
    >>> parse_camera("name: mine\\ndetecters: []\\n", "mine.yaml")
    Traceback (most recent call last):
        ...
    skyloom.algorithms.errors.ConfigurationError: mine.yaml has 3 problems:
      line 1: detectors: missing
      line 1: header: missing
      line 2: detecters: unknown key; did you mean detectors?
    """
    document = read_yaml(text, source)
    problems = list(document.problems)
    content = document.content
    if not isinstance(content, dict):
        report(document, [Problem((), "a camera is a mapping of keys to values")])
    problems += [
        Problem((str(key),), f"unknown key{suggestion(str(key), _TOP)}")
        for key in content
        if key not in _TOP
    ]
    problems += [
        Problem((key,), "missing") for key in ("name", "header", "detectors") if key not in content
    ]
    detectors, more = _read_detectors(document, content)
    problems += more
    rest = {key: content[key] for key in ("name", "description", "pixel_type") if key in content}
    parts: dict[str, Any] = {"detectors": tuple(detectors)}
    for key, model in (("layout", FileLayout), ("header", HeaderMap)):
        if key in content:
            parts[key], more = _validated(model, content[key] or {}, (key,))
            problems += more
    problems += _header_problems(parts.get("header"))
    report(document, problems)
    camera, problems = _validated(Camera, {**rest, **parts}, ())
    report(document, [*problems, *(_layout_problems(camera) if camera else [])])
    assert camera is not None  # report raised otherwise
    camera._text = text
    return camera


def _validated(model: type[Model], content: Any, path: Path_) -> tuple[Model | None, list[Problem]]:
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


def _read_detectors(
    document: YamlDocument, content: Mapping[str, Any]
) -> tuple[list[Detector], list[Problem]]:
    """Return the detectors with templates filled in, and all that is wrong with them."""
    templates = content.get("templates") or {}
    entries = content.get("detectors")
    if entries is None:
        return [], []
    if not isinstance(entries, list) or not isinstance(templates, dict):
        path = "templates" if isinstance(entries, list) else "detectors"
        return [], [Problem((path,), "must be a list of detectors, or a mapping of templates")]
    problems = [
        Problem(("templates", str(key)), "unknown key; templates are detectors or amplifiers")
        for key in templates
        if key not in ("detectors", "amplifiers")
    ]
    detectors: list[Detector] = []
    seen: dict[tuple[str, Any], int] = {}
    for index, entry in enumerate(entries):
        path: Path_ = ("detectors", index)
        if not isinstance(entry, dict):
            problems.append(Problem(path, "a detector is a mapping of keys to values"))
            continue
        expanded, more = _expand(entry, templates, path)
        detector, wrong = _validated(Detector, expanded, path)
        if detector:
            placed = tuple(amp.placed() for amp in detector.amplifiers)
            number = index if detector.id is None else detector.id
            detector = detector.model_copy(update={"amplifiers": placed, "id": number})
            wrong += _detector_problems(detector, path)
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
    entry: Mapping[str, Any], templates: Mapping[str, Any], path: Path_
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
    entry: Mapping[str, Any], templates: Any, path: Path_
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
    inner: Path_ = ("templates", "detectors", name, *path[2:])
    while inner[:4] in document.lines and inner not in document.lines:
        inner = inner[:-1]
    return Problem(inner, problem.message) if inner in document.lines else problem


def _detector_problems(detector: Detector, path: Path_) -> list[Problem]:
    """Return what is wrong with the geometry of a detector."""
    problems: list[Problem] = []
    amps = detector.amplifiers
    names: dict[str, int] = {}
    for index, amp in enumerate(amps):
        below = (*path, "amplifiers", index)
        if amp.name in names:
            other = f"{amp.name!r} is also the name of amplifiers[{names[amp.name]}]"
            problems.append(Problem((*below, "name"), other))
        names.setdefault(amp.name, index)
        if not amp.data.size:
            problems.append(Problem((*below, "data"), "holds no pixel"))
        for what, box in _boxes(amp):
            if not box.inside(detector.shape):
                shape = f"{detector.shape[0]} rows, {detector.shape[1]} columns"
                message = f"{box} of amplifier {amp.name} is outside the raw array of {shape}"
                problems.append(Problem((*below, what), message))
        for (what, box), (other_name, other_box) in combinations(_boxes(amp), 2):
            if "segment" not in (what, other_name) and box.overlaps(other_box):
                message = f"{other_name} and {what} of amplifier {amp.name} overlap"
                problems.append(Problem((*below, other_name), message))
    for (_, one), (second, two) in combinations(enumerate(amps), 2):
        for what in ("data", "segment"):
            mine, theirs = getattr(one, what), getattr(two, what)
            if mine and theirs and mine.overlaps(theirs):
                message = f"amplifiers {one.name} and {two.name} overlap: {mine} and {theirs}"
                problems.append(Problem((*path, "amplifiers", second, what), message))
    if not problems:
        problems += _trimmed_problems(detector, path)
    return problems


def _boxes(amp: Amplifier) -> list[tuple[str, Box]]:
    names = ("data", "overscan", "parallel_overscan", "segment")
    return [(name, box) for name in names if (box := getattr(amp, name)) and box.size]


def _trimmed_problems(detector: Detector, path: Path_) -> list[Problem]:
    problems = []
    boxes = trimmed_boxes(detector)
    for index, amp in enumerate(detector.amplifiers):
        box = boxes[amp.name]
        for axis in ("y", "x"):
            have, want = getattr(box, axis), getattr(amp.data, axis)
            if have[1] - have[0] != want[1] - want[0]:
                message = f"trimmed box {box} differs in size from the data {amp.data}"
                problems.append(Problem((*path, "amplifiers", index, "trimmed"), message))
                break
    for one, two in combinations(boxes, 2):
        if boxes[one].overlaps(boxes[two]):
            message = f"trimmed boxes of amplifiers {one} and {two} overlap; give them yourself"
            problems.append(Problem((*path, "amplifiers"), message))
    return problems


def _header_problems(header: HeaderMap | None) -> Iterator[Problem]:
    if header is None:
        return
    for value, meaning in header.observation_type.values.items():
        if meaning not in v.OBSERVATION_TYPES:
            known = ", ".join(v.OBSERVATION_TYPES)
            hint = suggestion(meaning, v.OBSERVATION_TYPES)
            yield Problem(
                ("header", "observation_type", "values", value),
                f"{meaning!r} is not an observation type ({known}){hint}",
            )
    if header.read_noise and not any("{amplifier}" in key for key in header.read_noise.key):
        yield Problem(("header", "read_noise"), "the key needs '{amplifier}' in it")


def _layout_problems(camera: Camera) -> Iterator[Problem]:
    """Yield what a layout needs and detectors do not say."""
    if camera.layout.file == "detector" and not camera.layout.detector:
        yield Problem(("layout", "detector"), "one file per detector needs a key that names it")
    for index, detector in enumerate(camera.detectors):
        path: Path_ = ("detectors", index)
        if camera.layout.hdu == "detector" and detector.hdu is None:
            yield Problem((*path, "hdu"), "missing: which HDU holds the detector")
        if camera.layout.hdu == "amplifier":
            for number, amp in enumerate(detector.amplifiers):
                below = (*path, "amplifiers", number)
                if amp.hdu is None:
                    yield Problem((*below, "hdu"), f"missing: which HDU holds {amp.name}")
                if amp.segment is None:
                    yield Problem((*below, "segment"), f"missing: where the HDU of {amp.name} goes")
