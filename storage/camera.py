"""Cameras: read from YAML, checked as a whole, handed out as datasets.

A camera file lists its detectors; ``templates`` keep identical ones short. Every problem in a
file is found in one reading and reported with its line.
"""

from __future__ import annotations

import os
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from pydantic import Field, PrivateAttr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import ConfigurationError
from skyloom.algorithms.parameters import Parameters
from skyloom.storage.camera_file import Problem, read_yaml, report, suggestion
from skyloom.storage.camera_geometry import trimmed_boxes
from skyloom.storage.camera_model import Detector, FileLayout, HeaderMap, Observatory
from skyloom.storage.camera_reading import (
    header_problems,
    layout_problems,
    read_detectors,
    validated,
)

__all__ = ["Camera", "camera_names", "load_camera", "parse_camera"]

_TOP = (
    "name",
    "description",
    "pixel_type",
    "pixel_size",
    "observatory",
    "layout",
    "header",
    "templates",
    "detectors",
)


class Camera(Parameters):
    """A camera: what its files and pixels mean."""

    name: str = Field(min_length=1, description="name of the camera")
    description: str = Field("", description="one line about it")
    pixel_type: Literal["auto", "uint16", "int32", "float32"] = Field(
        "auto", description="pixel type of the store; auto: that of the first file"
    )
    pixel_size: float | None = Field(
        None, gt=0, description="distance of pixels, micrometre; none = unknown"
    )
    observatory: Observatory | None = Field(
        None, description="where it observes; none: headers say it, or nothing does"
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


def camera_names() -> list[str]:
    """Return the names of the cameras that come with skyloom.

    Examples
    --------
    >>> camera_names()
    ['decam', 'generic', 'simulated-mosaic', 'simulated-sky']
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
    >>> parse_camera("name: mine\\ndetectorss: []\\n", "mine.yaml")
    Traceback (most recent call last):
        ...
    skyloom.algorithms.errors.ConfigurationError: mine.yaml has 3 problems:
      line 1: detectors: missing
      line 1: header: missing
      line 2: detectorss: unknown key; did you mean detectors?
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
    detectors, more = read_detectors(document, content)
    problems += more
    plain = ("name", "description", "pixel_type", "pixel_size")
    rest = {key: content[key] for key in plain if key in content}
    parts: dict[str, Any] = {"detectors": tuple(detectors)}
    for key, model in (
        ("layout", FileLayout),
        ("header", HeaderMap),
        ("observatory", Observatory),
    ):
        if key in content:
            parts[key], more = validated(model, content[key] or {}, (key,))
            problems += more
    problems += header_problems(parts.get("header"))
    report(document, problems)
    camera, problems = validated(Camera, {**rest, **parts}, ())
    if camera:
        problems += layout_problems(camera.layout, camera.detectors)
    report(document, problems)
    assert camera is not None  # report raised otherwise
    camera._text = text
    return camera
