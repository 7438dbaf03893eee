"""The EMVA 1288 reference set through the command line, from FITS files to gain and noise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import xarray as xr

from skyloom.storage import open_store
from tests.real_data.emva_to_fits import convert
from tests.real_data.measured import SHARED

__all__ = ["EMVA", "run_command_line"]

EMVA = SHARED / "emva-ccd12"
HERE = Path(__file__).parent


def run_command_line(folder: Path, *options: str) -> tuple[xr.Dataset, str]:
    """Convert, ingest, run and report; return the curve of the amplifier and what was printed."""
    files, store = folder / "fits", folder / "emva.store"
    if not files.exists():
        convert(EMVA, files)
    commands = (
        ["ingest", str(store), str(files), "--camera", str(HERE / "emva_ccd12.yaml"), "--quiet"],
        ["run", str(store), "photon_transfer", "--quiet", *options],
        ["report", str(store), "photon_transfer", "--output", str(folder / "report.html")],
    )
    printed = ""
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "skyloom", *command], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"skyloom {' '.join(command)} ended with {done.stderr}")
        printed += done.stdout
    return open_store(str(store))["ptc"].isel(detector=0, amp=0).load(), printed


def standard_options() -> tuple[str, ...]:
    """Return the options that measure the gain as the EMVA 1288 standard does."""
    return ("--config", str(HERE / "emva_ccd12_run.yaml"))
