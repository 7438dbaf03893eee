"""Pixels to the focal plane and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyloom.algorithms.focal_plane import detector_transform, to_focal_plane, to_pixels


@given(
    rotation=st.floats(-360, 360),
    x=st.floats(-1e4, 1e4),
    y=st.floats(-1e4, 1e4),
    pixel_size=st.floats(1e-3, 1.0),
)
def test_back_and_forth_is_the_same_place(rotation, x, y, pixel_size):
    transform = detector_transform(
        (4000, 4072), pixel_size=pixel_size, offset=(30.0, -7.0), rotation=rotation
    )
    back = to_pixels(transform, *to_focal_plane(transform, x, y))
    np.testing.assert_allclose(back, (x, y), atol=1e-8)


def test_a_quarter_turn_takes_the_x_axis_to_the_y_axis():
    transform = detector_transform((11, 21), pixel_size=0.5, offset=(1.0, 2.0), rotation=90.0)
    np.testing.assert_allclose(to_focal_plane(transform, 12.0, 5.0), (1.0, 3.0), atol=1e-12)


@pytest.mark.parametrize(
    ("options", "name"),
    [({"pixel_size": 0.0}, "pixel_size"), ({"pixel_size": 1.0, "shape": (0, 4)}, "shape")],
)
def test_misuse_is_named(options, name):
    with pytest.raises(ValueError, match=name):
        detector_transform(options.pop("shape", (4, 4)), **options)
