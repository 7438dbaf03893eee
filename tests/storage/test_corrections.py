"""Crosstalk, linearity and defects are read by detector, or refused with their line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from skyloom.algorithms.amplifiers import amplifier_rows, trimmed_shape
from skyloom.algorithms.detrend.defects import defect_planes
from skyloom.algorithms.errors import ConfigurationError
from skyloom.storage.camera import load_camera
from skyloom.storage.corrections import read_corrections

CAMERA = load_camera("simulated-mosaic")
SHAPE = trimmed_shape(amplifier_rows(CAMERA.amplifiers("S00")))


def written(folder: Path, text: str) -> Path:
    file = folder / "corrections.yaml"
    file.write_text(text)
    return file


def test_what_a_file_says_is_what_algorithms_are_given(tmp_path: Path) -> None:
    bad = np.zeros(SHAPE, np.uint8)
    bad[5, 7] = 4
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(bad, name="S00")]).writeto(tmp_path / "bad.fits")
    found = read_corrections(
        written(
            tmp_path,
            """
detectors:
  S00:
    crosstalk:
      B: {A: 2.0e-3, C: -1.0e-4}
    linearity:
      A: {signal: [0, 1000], correction: [0, 5]}
      B: {signal: [0, 1000, 3000], correction: [0, 5, 9]}
      C: {signal: [0, 1000], correction: [0, 5]}
      D: {signal: [0, 1000], correction: [1, 5]}
    defects:
      - {y: [0, 3], x: [10, 12]}
    mask: bad.fits
    mask_hdu: S00
  S01:
    defects: [{y: [1, 2], x: [0, 9999]}]
""",
        ),
        CAMERA,
    )
    assert found.kinds() == ("crosstalk", "linearity", "defects")
    talk = found.dataset("S00", "crosstalk")["crosstalk"]
    assert talk.sel(amp="B").values.tolist() == [2e-3, 0.0, -1e-4, 0.0]
    assert not talk.sel(amp=["A", "C", "D"]).values.any()
    curve = found.dataset("S00", "linearity")
    assert curve["knot_correction"].sel(amp="D").values.tolist()[:2] == [1.0, 5.0]
    assert np.isnan(curve["knot_signal"].sel(amp="A").values[2])
    mask = found.dataset("S00", "defects")["mask"].values
    assert (mask != 0).sum() == 7
    assert mask[5, 7]
    assert mask[:3, 10:12].all()
    planes = defect_planes(found.dataset("S01", "defects"), SHAPE)
    assert planes is not None
    assert (planes.values != 0).sum(axis=1).tolist()[:3] == [0, SHAPE[1], 0]
    assert found.dataset("S02", "crosstalk").sizes == {}
    assert found.dataset("S01", "linearity").sizes == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cross: 1", r"line 3: .*cross: unknown key; did you mean"),
        ("crosstalk: {A: {Z: 1e-4}}", r"line 3: .*A\.Z: there is no such amplifier"),
        ("crosstalk: {A: {B: .nan}}", r"line 3: .*A\.B: .*finite"),
        ("linearity: {A: {polynomial: [1e-8]}}", r"lacks the amplifiers B, C, D"),
        ("linearity: {A: {signal: [1, 2], correction: [1]}}", r"2 knots, correction 1"),
        ("linearity: {A: {}}", r"give either polynomial, or signal and correction"),
        ("defects: [{y: [3, 1], x: [0, 4]}]", r"line 3: .*defects: .*ends before it starts"),
        ("mask: none.fits", r"defects: mask: HDU 0 of .*none\.fits cannot be read"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_corrections(written(tmp_path, f"detectors:\n  S00:\n    {text}\n"), CAMERA)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"a mapping with the one key `detectors`"),
        ("detectors:\n  S0: {}\n", r"line 2: detectors\.S0: camera simulated-mosaic has no such"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_corrections(written(tmp_path, text), CAMERA)


def test_a_mask_of_another_size_and_a_file_that_is_not_there_are_refused(tmp_path: Path) -> None:
    fits.PrimaryHDU(np.zeros((3, 4), np.int16)).writeto(tmp_path / "small.fits")
    with pytest.raises(ConfigurationError, match=r"small\.fits has shape \(3, 4\), the detector"):
        read_corrections(written(tmp_path, "detectors: {S00: {mask: small.fits}}"), CAMERA)
    with pytest.raises(ConfigurationError, match=r"no corrections could be read from .*gone\.yaml"):
        read_corrections(tmp_path / "gone.yaml", CAMERA)
