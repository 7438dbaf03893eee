"""FITS keys of exposures with every kind of distortion."""

from __future__ import annotations

from typing import Any

from astropy.io import fits

from skyloom.algorithms.tangent_plane import TangentPlane


def keys_of(plane: TangentPlane, **more: Any) -> fits.Header:
    """Return the keys of a tangent plane, changed and extended."""
    return fits.Header(plane.header() | {"NAXIS": 2} | more)


def distorted(kind: str, plane: TangentPlane) -> fits.Header:
    """Return a header with the distortion of a wide camera: some pixels at the corners."""
    if kind == "TAN":
        return keys_of(plane)
    if kind == "SIP":
        forward = {"A_ORDER": 3, "A_2_0": 2e-6, "A_1_1": -1e-6, "A_3_0": 3e-10, "A_1_2": 2e-10}
        other = {"B_ORDER": 3, "B_0_2": 1e-6, "B_1_1": 2e-6, "B_0_3": 3e-10, "B_2_1": 2e-10}
        return keys_of(plane, CTYPE1="RA---TAN-SIP", CTYPE2="DEC--TAN-SIP", **forward, **other)
    if kind == "TPV":
        cubic = {f"PV{axis}_1": 1.0002 for axis in (1, 2)}
        cubic |= {f"PV{axis}_4": 3e-4 for axis in (1, 2)}
        cubic |= {f"PV{axis}_7": 5e-3 for axis in (1, 2)}
        cubic |= {f"PV{axis}_9": 5e-3 for axis in (1, 2)}
        return keys_of(plane, CTYPE1="RA---TPV", CTYPE2="DEC--TPV", **cubic)
    if kind == "ZPN":
        return keys_of(
            plane, CTYPE1="RA---ZPN", CTYPE2="DEC--ZPN", PV2_1=1.0, PV2_2=0.0, PV2_3=42.0
        )
    if kind in ("STG", "ZEA", "ARC", "SIN"):
        return keys_of(plane, CTYPE1=f"RA---{kind}", CTYPE2=f"DEC--{kind}")
    raise ValueError(kind)
