"""What was measured of detectors besides frames: crosstalk, linearity and defects, from YAML.

A file says it by detector and amplifier, in the names of the camera::

    detectors:
      S00:
        crosstalk:              # fractions of what the second amplifier reads, heard by the first
          A: {B: 1.2e-4, C: -3e-5}
        linearity:              # added to signals, adu above overscan and bias, between the knots
          A: {signal: [0, 20000, 60000], correction: [0, 12.5, -80]}
          B: {signal: [0, 30000, 60000], correction: [0, 8, -70]}
        defects:                # half-open boxes in trimmed pixels
          - {y: [0, 4096], x: [17, 18]}
        mask: S00_bad.fits      # or an image of that size whose pixels that are not 0 are bad

In place of knots all amplifiers may have ``polynomial: [c0, c1, ...]``: a signal s then is
s + c0 s^2 + c1 s^3 + ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import xarray as xr
from astropy.io import fits
from pydantic import Field, model_validator

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import amplifier_rows, trimmed_shape
from skyloom.algorithms.detrend.crosstalk import crosstalk_shares
from skyloom.algorithms.detrend.defects import defect_planes
from skyloom.algorithms.detrend.linearity import linearity_pieces
from skyloom.algorithms.errors import ConfigurationError
from skyloom.algorithms.parameters import Parameters
from skyloom.storage.camera import Camera
from skyloom.storage.camera_file import Problem, YamlDocument, read_yaml, report, suggestion
from skyloom.storage.camera_reading import validated

__all__ = ["KINDS", "Corrections", "read_corrections"]

KINDS = ("crosstalk", "linearity", "defects")
"""The corrections there are, by their names in `skyloom.algorithms.detrend.detrend`."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
Side = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]


class Linearity(Parameters):
    """How the signal of one amplifier is made linear: a polynomial, or knots."""

    polynomial: tuple[Finite, ...] = Field((), description="coefficients of s^2, s^3, ... in adu")
    signal: tuple[Finite, ...] = Field((), description="knots, adu, ascending")
    correction: tuple[Finite, ...] = Field((), description="what is added at the knots, adu")

    @model_validator(mode="after")
    def _one_form(self) -> Linearity:
        if bool(self.polynomial) == bool(self.signal):
            raise ValueError("give either polynomial, or signal and correction")
        if len(self.signal) != len(self.correction):
            raise ValueError(
                f"signal has {len(self.signal)} knots, correction {len(self.correction)}"
            )
        return self


class Defect(Parameters):
    """A box of bad pixels."""

    y: Side = Field(description="first row and the one after the last, trimmed pixels")
    x: Side = Field(description="first column and the one after the last, trimmed pixels")


class DetectorCorrections(Parameters):
    """What was measured of one detector."""

    crosstalk: dict[str, dict[str, Finite]] = Field(
        {}, description="fraction of what a source amplifier reads, by amplifier and source"
    )
    linearity: dict[str, Linearity] = Field({}, description="by amplifier; all or none")
    defects: tuple[Defect, ...] = Field((), description="boxes of bad pixels")
    mask: str | None = Field(None, description="FITS image, bad where it is not 0")
    mask_hdu: int | str = Field(0, description="HDU of the mask: its number or name")


class Corrections(NamedTuple):
    """The corrections of a camera's detectors; masks are read when they are asked for."""

    camera: Camera
    detectors: Mapping[str, DetectorCorrections]
    folder: Path

    def kinds(self) -> tuple[str, ...]:
        """Return which of `KINDS` some detector has."""
        return tuple(
            kind for kind in KINDS if any(has(one, kind) for one in self.detectors.values())
        )

    def dataset(self, detector: str, kind: str) -> xr.Dataset:
        """Return a correction as `skyloom.algorithms.detrend.detrend` takes it.

        Without variables if the detector has none.

        Raises
        ------
        ValueError
            If the algorithms do not accept it, or a mask cannot be read.
        """
        known = self.detectors.get(detector)
        if known is None or not has(known, kind):
            return xr.Dataset()
        amps = self.camera.amplifier_names(detector)
        if kind == "crosstalk":
            found = _crosstalk(known.crosstalk, amps)
        elif kind == "linearity":
            found = _linearity(known.linearity)
        else:
            rows = amplifier_rows(self.camera.amplifiers(detector))
            found = _defects(known, trimmed_shape(rows), self.folder)
        return found.assign_attrs(detector=detector, camera=self.camera.name)


def has(known: DetectorCorrections, kind: str) -> bool:
    """Return whether a detector has a correction."""
    if kind == "defects":
        return bool(known.defects) or known.mask is not None
    return bool(getattr(known, kind))


def read_corrections(path: str | Path, camera: Camera) -> Corrections:
    """Read crosstalk, linearity and defects of the detectors of a camera.

    Parameters
    ----------
    path : str or Path
        YAML file, see the module. A path of a mask is one from this file's folder.
    camera : Camera
        Whose detectors and amplifiers it names.

    Returns
    -------
    Corrections
        An amplifier that the crosstalk does not name hears and says nothing.

    Raises
    ------
    ConfigurationError
        If the file cannot be read, or something in it is wrong: every problem with its line.

    Examples
    --------
    >>> import tempfile
    >>> from skyloom.storage.camera import load_camera
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "corrections.yaml"
    ...     _ = file.write_text("detectors: {S00: {crosstalk: {A: {B: 1e-4}}}}")
    ...     found = read_corrections(file, load_camera("simulated-mosaic"))
    >>> table = found.dataset("S00", "crosstalk")["crosstalk"]
    >>> float(table.sel(amp="A", source_amp="B"))
    0.0001
    """
    place = Path(path).expanduser()
    try:
        text = place.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"no corrections could be read from {place}: {error}") from error
    document = read_yaml(text, str(place))
    report(document, document.problems)
    problems: list[Problem] = []
    known: dict[str, DetectorCorrections] = {}
    for name, content in _detectors(document, camera).items():
        model, more = validated(DetectorCorrections, content or {}, ("detectors", name))
        problems += more
        if model is not None:
            known[name] = model
            problems += _unknown_amplifiers(model, camera.amplifier_names(name), name)
    report(document, problems)
    found = Corrections(camera, known, place.parent)
    report(document, [problem for name in known for problem in _refused(found, name)])
    return found


def _detectors(document: YamlDocument, camera: Camera) -> dict[str, Any]:
    """Return what the file says of each detector."""
    content = document.content
    named = content.get("detectors") if isinstance(content, dict) else None
    if not isinstance(named, dict) or set(content) != {"detectors"}:
        problem = Problem((), "corrections are a mapping with the one key `detectors`")
        report(document, [problem])
    assert isinstance(named, dict)  # report raised otherwise
    named = {str(name): said for name, said in named.items()}  # YAML reads 12 as a number
    known = camera.detector_names()
    report(
        document,
        [
            Problem(
                ("detectors", name),
                f"camera {camera.name} has no such detector{suggestion(name, known)}",
            )
            for name in named
            if name not in known
        ],
    )
    return named


def _refused(corrections: Corrections, name: str) -> list[Problem]:
    """Return what the algorithms do not accept of the corrections of a detector."""
    rows = amplifier_rows(corrections.camera.amplifiers(name))
    problems = []
    checks: dict[str, Callable[[xr.Dataset], object]] = {
        "crosstalk": lambda found: crosstalk_shares(found, rows, name),
        "linearity": lambda found: linearity_pieces(found, rows, name),
        "defects": lambda found: defect_planes(found, trimmed_shape(rows), name),
    }
    for kind, check in checks.items():
        try:
            found = corrections.dataset(name, kind)
            if found.data_vars:
                check(found)
        except ValueError as error:
            problems.append(Problem(("detectors", name, kind), str(error)))
    return problems


def _unknown_amplifiers(model: DetectorCorrections, amps: list[str], name: str) -> list[Problem]:
    """Return which amplifiers are named that the detector does not have."""
    named = [("crosstalk", amp) for amp in model.crosstalk]
    named += [("linearity", amp) for amp in model.linearity]
    sources = [("crosstalk", amp, to) for amp, heard in model.crosstalk.items() for to in heard]
    return [
        Problem(
            ("detectors", name, *where),
            f"there is no such amplifier; the detector has {', '.join(amps)}",
        )
        for where in (*named, *sources)
        if where[-1] not in amps
    ]


def _crosstalk(given: dict[str, dict[str, float]], amps: list[str]) -> xr.Dataset:
    matrix = [[given.get(amp, {}).get(source, 0.0) for source in amps] for amp in amps]
    return xr.Dataset(
        {"crosstalk": ((v.AMP, v.SOURCE_AMP), np.array(matrix))},
        coords={v.AMP: amps, v.SOURCE_AMP: amps},
    )


def _linearity(given: dict[str, Linearity]) -> xr.Dataset:
    """Return knots of all amplifiers, or polynomials of all."""
    forms = {bool(one.polynomial) for one in given.values()}
    if len(forms) > 1:
        raise ValueError(
            "linearity: some amplifiers have a polynomial, others knots; give one form"
        )
    if forms == {True}:
        terms = _padded([one.polynomial for one in given.values()], 0.0)
        columns = {"polynomial": ((v.AMP, v.COEFFICIENT), terms)}
    else:
        columns = {
            f"knot_{name}": (
                (v.AMP, v.KNOT),
                _padded([getattr(one, name) for one in given.values()], np.nan),
            )
            for name in ("signal", "correction")
        }
    return xr.Dataset(columns, coords={v.AMP: list(given)})


def _padded(rows: list[tuple[float, ...]], fill: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    table = np.full((len(rows), max(map(len, rows))), fill)
    for row, values in zip(table, rows, strict=True):
        row[: len(values)] = values
    return table


def _defects(model: DetectorCorrections, shape: tuple[int, int], folder: Path) -> xr.Dataset:
    """Return boxes (defect), or a mask of them and of the image, (y, x)."""
    boxes = xr.Dataset(
        {
            f"{axis}_{end}": (v.DEFECT, [getattr(one, axis)[at] for one in model.defects])
            for axis in "yx"
            for at, end in enumerate(("start", "stop"))
        }
    )
    if model.mask is None:
        return boxes
    bad = _image(folder / Path(model.mask).expanduser(), model.mask_hdu, shape)
    mask = np.where(bad, np.int32(v.MASK_PLANES["BAD"]), np.int32(0))
    if model.defects:
        planes = defect_planes(boxes, shape)
        assert planes is not None  # there are some
        mask |= planes.to_numpy()
    return xr.Dataset({v.MASK: ((v.Y, v.X), mask, v.mask_attributes())})


def _image(
    path: Path, hdu: int | str, shape: tuple[int, int]
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    try:
        with fits.open(path) as hdus:
            pixels = hdus[hdu].data
    except (OSError, KeyError, IndexError) as error:
        raise ValueError(f"mask: HDU {hdu} of {path} cannot be read: {error}") from error
    found = None if pixels is None else pixels.shape
    if found != shape:
        raise ValueError(f"mask: HDU {hdu} of {path} has shape {found}, the detector {shape}")
    return np.asarray(pixels != 0)
