"""What a FITS file holds, found from its headers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from astropy.io import fits

from skyloom.algorithms.errors import IngestError
from skyloom.storage.camera import Camera
from skyloom.storage.camera_model import Amplifier, Detector, HduName
from skyloom.storage.fits_files import open_fits, reading
from skyloom.storage.fits_images import find_hdu, hdu_names, missing_hdu, pixel_type
from skyloom.storage.headers import read_headers
from skyloom.storage.projections import detector_move, moved, projection_keys

__all__ = ["DetectorFacts", "FileFacts", "detectors_in", "locate", "scan_file"]


@dataclass(frozen=True, slots=True)
class DetectorFacts:
    """One detector in a file."""

    name: str
    hdus: tuple[int, ...]
    dtype: str
    headers: Mapping[str, Any]
    projection: Mapping[str, Any] = field(default_factory=dict)
    """FITS keys of the world coordinate system, for trimmed pixels; empty if there is none."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What one file holds. Small: it travels to the worker that copies the pixels."""

    path: str
    identity: Mapping[str, Any]
    exposure: int
    detectors: tuple[DetectorFacts, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def detector_names(self) -> tuple[str, ...]:
        """Names of the detectors that can be ingested."""
        return tuple(part.name for part in self.detectors)

    def part(self, name: str) -> DetectorFacts:
        """Return what is known of one detector."""
        return next(part for part in self.detectors if part.name == name)


def scan_file(camera: Camera, path: str | Path) -> FileFacts:
    """Read the headers of a FITS file and find what it holds.

    Parameters
    ----------
    camera : Camera
        Says what headers and HDUs mean.
    path : str or Path
        The file.

    Returns
    -------
    FileFacts
        Exposure, detectors with their HDUs and mapped header values. A detector that cannot be
        ingested is named in ``problems`` while others can.

    Raises
    ------
    IngestError
        If nothing in the file can be ingested; the message names file, HDU or key, and what to
        do, one line per problem.
    """
    place = Path(path).expanduser().absolute()
    with open_fits(place) as hdus, reading(place):
        parts: list[DetectorFacts] = []
        problems: list[str] = []
        notes: list[str] = []
        held = detectors_in(hdus, camera, place)
        for detector in held:
            where, wrong = locate(hdus, camera, detector)
            if where is None:
                problems += wrong
                continue
            found = read_headers(hdus, camera, detector, where)
            if found.problems:
                problems += found.problems
                continue
            notes += found.notes
            projection, wrong = _projection(hdus, camera, detector, where)
            notes += wrong
            kinds = {pixel_type(hdus[index].header) for index in where}
            kind = kinds.pop() if len(kinds) == 1 else "float32"
            parts.append(DetectorFacts(detector.name, where, kind, found.values, projection))
        exposures = {part.headers["exposure"] for part in parts}
        if len(exposures) > 1:
            problems.append(f"its HDUs belong to different exposures: {sorted(exposures)}")
            parts = []
        problems = list(dict.fromkeys(problems))
        if not parts:
            if not problems:
                names = ", ".join(camera.detector_names()[:8])
                problems.append(
                    f"no HDU belongs to a detector of camera {camera.name} ({names}); its images "
                    f"are {hdu_names(hdus)}; use the right camera"
                )
            lines = "".join(f"\n  {problem}" for problem in problems[1:])
            raise IngestError(f"{place}: {problems[0]}{lines}")
        notes += _absent(camera, held)
        stat = place.stat()
        identity = {"file": str(place), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        return FileFacts(
            str(place),
            identity,
            exposures.pop(),
            tuple(parts),
            tuple(problems),
            tuple(dict.fromkeys(notes)),
        )


def _projection(
    hdus: fits.HDUList, camera: Camera, detector: Detector, where: Sequence[int]
) -> tuple[dict[str, Any], list[str]]:
    """Return the projection of a detector, and a note if there is one that cannot be used."""
    if camera.header.wcs == "none":
        return {}, []
    try:
        keys = projection_keys(hdus[where[0]].header)
        return (moved(keys, detector_move(camera, detector)) if keys else {}), []
    except ValueError as error:
        text = f"the world coordinate system of detector {detector.name} is left out: {error}"
        return {}, [text]


def _absent(camera: Camera, held: Sequence[Detector]) -> list[str]:
    """Return a note of detectors that a file of a whole exposure lacks, be it on purpose."""
    absent = [each.name for each in camera.detectors if each not in held]
    if camera.layout.file != "exposure" or not absent:
        return []
    names = ", ".join(absent[:8]) + (", ..." if len(absent) > 8 else "")
    count = f"{len(absent)} of {len(camera.detectors)}"
    return [f"no image of {count} detectors of the camera ({names})"]


def detectors_in(hdus: fits.HDUList, camera: Camera, path: Path) -> list[Detector]:
    """Return the detectors a file may hold.

    Raises
    ------
    IngestError
        If the file should name its detector and does not.
    """
    if camera.layout.file == "exposure":
        found = []
        for detector in camera.detectors:
            names: list[tuple[HduName | None, Amplifier | None]]
            if camera.layout.hdu == "detector":
                names = [(detector.hdu, None)]
            else:
                names = [(amp.hdu, amp) for amp in detector.amplifiers]
            # A detector of which nothing is there was not read out: no error.
            places = [find_hdu(hdus, camera, name, detector, amp) for name, amp in names]
            if any(index is not None for index in places):
                found.append(detector)
        return found
    keys = camera.layout.detector
    for key in keys:
        for hdu in hdus:
            if key in hdu.header:
                value = str(hdu.header[key]).strip()
                named = [each for each in camera.detectors if value in (each.name, str(each.id))]
                if named:
                    return named
                known = ", ".join(camera.detector_names()[:8])
                raise IngestError(
                    f"{path}: header key {key} names the detector {value!r}, which camera "
                    f"{camera.name} does not have ({known}); use the right camera"
                )
    raise IngestError(
        f"{path}: header key {' or '.join(keys)}, which names the detector, is missing; add it "
        "to the file or correct the camera's layout"
    )


def locate(
    hdus: fits.HDUList, camera: Camera, detector: Detector
) -> tuple[tuple[int, ...] | None, list[str]]:
    """Return the HDUs of a detector, or what is wrong with them."""
    where: list[int] = []
    problems: list[str] = []
    wanted: list[tuple[HduName | None, Amplifier | None, tuple[int, int]]]
    if camera.layout.hdu == "detector":
        wanted = [(detector.hdu, None, detector.shape)]
    else:
        wanted = [(amp.hdu, amp, amp.segment.shape) for amp in detector.amplifiers if amp.segment]
    for name, amp, shape in wanted:
        whose = f"detector {detector.name}" + (f", amplifier {amp.name}" if amp else "")
        index = find_hdu(hdus, camera, name, detector, amp)
        if index is None:
            problems.append(missing_hdu(hdus, name, detector, amp))
            continue
        where.append(index)
        if hdus[index].shape != shape:
            have = " x ".join(map(str, hdus[index].shape))
            want = " x ".join(map(str, shape))
            problems.append(
                f"HDU {index} ({whose}) has {have} pixels, the camera says {want} (rows x "
                "columns); correct the camera's shape, or leave out binned and windowed images"
            )
    return (None if problems else tuple(where)), problems
