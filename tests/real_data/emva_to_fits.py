"""Write the EMVA 1288 reference set of a 12-bit CCD as FITS files that skyloom can ingest.

The set (CC BY-SA 3.0, (C) 2011 Basler AG, author Dr. Marco Grimm) holds PNG images and a
descriptor: lines ``b <exposure ns> <photons/pixel>`` (bright) and ``d <exposure ns>`` (dark),
each followed by ``i <file>`` lines. Every image of a pair becomes one FITS file with the keys
that the camera description beside this file maps. Run it as

    python tests/real_data/emva_to_fits.py <folder of the set> <folder for the FITS files>
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from astropy.io import fits
from PIL import Image

DESCRIPTOR = "EMVA1288_Data_subset.txt"
PAIR = 2  # longer lists are the stacks for spatial non-uniformity, which need no pairs


def read_descriptor(path: Path) -> list[tuple[str, float, list[str]]]:
    """Return ``(observation type, exposure time in s, files)`` for each level."""
    levels: list[tuple[str, float, list[str]]] = []
    for line in path.read_text().splitlines():
        word, *rest = line.split() or [""]
        if word in {"b", "d"}:
            levels.append(("FLAT" if word == "b" else "DARK", float(rest[0]) * 1e-9, []))
        elif word == "i":
            levels[-1][2].append(rest[0])
    return levels


def convert(source: Path, target: Path) -> list[Path]:
    """Write one FITS file per image of a pair and return their paths."""
    target.mkdir(parents=True, exist_ok=True)
    written = []
    for observation_type, exposure_time, files in read_descriptor(source / DESCRIPTOR):
        if len(files) != PAIR:
            continue
        for name in files:
            number = 1000 + len(written)
            hdu = fits.PrimaryHDU(np.asarray(Image.open(source / name), dtype=np.uint16))
            hdu.header["EXPID"] = (number, "exposure number")
            hdu.header["OBSTYPE"] = observation_type
            hdu.header["EXPTIME"] = (exposure_time, "[s]")
            hdu.header["ORIGFILE"] = name
            path = target / f"emva_{number}.fits"
            hdu.writeto(path, overwrite=True)
            written.append(path)
    return written


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    print(f"{len(convert(arguments.source, arguments.target))} files")
