"""Draw the pictures of the README and the guide from the store of `make demo`.

``python docs/pictures.py demo/store``
"""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.figure import Figure

from skyloom.flows.report.blocks import amplifier_overview, detector_block, with_detectors
from skyloom.flows.report.curves import photon_transfer_figure
from skyloom.flows.report.focal_plane import focal_plane, focal_plane_figure
from skyloom.flows.report.matrices import matrix_figure
from skyloom.flows.report.style import png_bytes
from skyloom.storage import open_store

DETECTOR, AMPLIFIER = "S01", "A"


def draw_pictures(url: str, folder: Path) -> None:
    """Write every picture into a folder."""
    store = open_store(url)
    ptc = store["ptc"]
    ptc = with_detectors(ptc.assign_attrs(model=ptc.attrs["configuration"]["solve"]["model"]))
    overview = amplifier_overview(ptc)
    amplifier = detector_block(ptc, DETECTOR).sel(amp=AMPLIFIER)
    pictures: dict[str, Figure] = {
        "photon_transfer": photon_transfer_figure(amplifier),
        "a_matrix": matrix_figure(amplifier),
        "focal_plane": focal_plane_figure(overview, focal_plane(overview, store.camera)),
    }
    folder.mkdir(exist_ok=True)
    for name, figure in pictures.items():
        (folder / f"{name}.png").write_bytes(png_bytes(figure))


if __name__ == "__main__":
    draw_pictures(sys.argv[1], Path(__file__).parent / "images")
