"""Geometry of detectors: where trimmed pixels lie, and boxes that contradict each other."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from skyloom.storage.camera_file import Problem
from skyloom.storage.camera_model import Amplifier, Box, Detector

__all__ = ["detector_problems", "trimmed_boxes", "trimmed_size"]

KeyPath = tuple[str | int, ...]


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
    >>> from skyloom.storage.camera import load_camera
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


def trimmed_size(detector: Detector) -> tuple[int, int]:
    """Return rows and columns of the trimmed detector.

    Examples
    --------
    >>> from skyloom.storage.camera import load_camera
    >>> trimmed_size(load_camera("decam").detector("S29"))
    (4096, 2048)
    """
    boxes = trimmed_boxes(detector).values()
    return max(box.y[1] for box in boxes), max(box.x[1] for box in boxes)


def detector_problems(detector: Detector, path: KeyPath) -> list[Problem]:
    """Return what is wrong with the geometry of a detector: overlaps, boxes outside, same names.

    Parameters
    ----------
    detector : Detector
        With its boxes placed in the raw array.
    path : tuple
        Where the detector stands in its file.
    """
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


def _trimmed_problems(detector: Detector, path: KeyPath) -> list[Problem]:
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
