"""A camera held against real files: what does not fit, and what was probably meant."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from astropy.io import fits

from skyloom.algorithms.errors import IngestError
from skyloom.storage.camera import Camera
from skyloom.storage.camera_model import Amplifier, Box, Detector
from skyloom.storage.fits_files import Places, find_files, open_fits, reading
from skyloom.storage.fits_images import hdu_names, missing_hdu
from skyloom.storage.headers import read_headers
from skyloom.storage.scan import detectors_in, locate

__all__ = ["check_camera"]

_SECTION = re.compile(r"\[(\d+):(\d+),(\d+):(\d+)\]")


def check_camera(camera: Camera, files: Places) -> list[str]:
    """Return what does not fit between a camera and FITS files of it.

    Parameters
    ----------
    camera : Camera
        The camera.
    files : path or sequence of path
        FITS files, or directories of them.

    Returns
    -------
    list of str
        One line per problem, each with its file; empty if all is well. Missing HDUs and keys,
        other shapes, observation types without translation, and DATASEC, BIASSEC and DETSEC
        headers that contradict the camera's boxes.

    Examples
    --------
    >>> from skyloom.storage.camera import load_camera
    >>> check_camera(load_camera("generic"), ["missing.fits"])[0].endswith("check the path")
    True
    """
    problems: list[str] = []
    for path in find_files(files):
        try:
            with open_fits(path) as hdus, reading(path):
                found = dict.fromkeys(_file_problems(hdus, camera, path))
            problems += [f"{path}: {problem}" for problem in found]
        except IngestError as error:
            problems.append(str(error))
    return problems


def _file_problems(hdus: fits.HDUList, camera: Camera, path: Path) -> Iterator[str]:
    try:
        detectors = detectors_in(hdus, camera, path)
    except IngestError as error:
        yield str(error).removeprefix(f"{os.fspath(path)}: ")
        return
    if camera.layout.file == "exposure":
        for detector in camera.detectors:
            if detector not in detectors:
                first = detector.amplifiers[0] if camera.layout.hdu == "amplifier" else None
                yield missing_hdu(hdus, first.hdu if first else detector.hdu, detector, first)
    for detector in detectors:
        where, problems = locate(hdus, camera, detector)
        yield from problems
        if where is None:
            continue
        values = read_headers(hdus, camera, detector, where)
        yield from values.problems
        yield from values.notes
        yield from _section_problems(hdus, camera, detector, where)
    if not detectors:
        yield f"no image belongs to camera {camera.name}; the images are {hdu_names(hdus)}"


def _section_problems(
    hdus: fits.HDUList, camera: Camera, detector: Detector, where: tuple[int, ...]
) -> Iterator[str]:
    """Yield contradictions between the section headers of HDUs and the boxes of amplifiers."""
    for number, amp in enumerate(detector.amplifiers):
        own = camera.layout.hdu == "amplifier"
        header = hdus[where[number if own else 0]].header
        plain = own or len(detector.amplifiers) == 1
        for word, box in (("DATASEC", amp.data), ("BIASSEC", amp.overscan)):
            keys = [f"{word}{amp.name}", *([word] if plain else [])]
            key = next((key for key in keys if key in header), None)
            if key is None:
                continue
            section = _parsed(str(header[key]))
            seen = _seen(box, amp, own)
            if section and section != seen:
                name = "data" if word == "DATASEC" else "overscan"
                yield (
                    f"header {key} = {header[key]} is {section}, but the {name} of amplifier "
                    f"{amp.name} of detector {detector.name} is {seen}"
                )
        yield from _size_problem(header, amp, detector, plain)


def _size_problem(
    header: fits.Header, amp: Amplifier, detector: Detector, plain: bool
) -> Iterator[str]:
    """Yield a contradiction between DETSEC and the size of the data."""
    for key in (f"DETSEC{amp.name}", *(["DETSEC"] if plain else [])):
        section = _parsed(str(header.get(key, "")))
        if section is None:
            continue
        want = [end - start for start, end in (amp.data.y, amp.data.x)]
        have = [end - start for start, end in (section.y, section.x)]
        if want != have:
            yield (
                f"header {key} = {header[key]} spans {have[0]} x {have[1]} pixels, but the data "
                f"of amplifier {amp.name} of detector {detector.name} span {want[0]} x {want[1]}"
            )
        return


def _seen(box: Box, amp: Amplifier, own: bool) -> Box:
    """Return a box as the headers count: from the corner of the HDU."""
    if own and amp.segment is not None and box.size:
        return box.shifted((-amp.segment.y[0], -amp.segment.x[0]))
    return box


def _parsed(text: str) -> Box | None:
    """Return a FITS section as a box; one that runs backwards covers the same pixels."""
    match = _SECTION.fullmatch(text.replace(" ", ""))
    if match is None:
        return None
    x1, x2, y1, y2 = map(int, match.groups())
    (x1, x2), (y1, y2) = sorted((x1, x2)), sorted((y1, y2))
    if min(x1, y1) < 1:
        return None
    return Box(y=(y1 - 1, y2), x=(x1 - 1, x2))
