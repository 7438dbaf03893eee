"""Survey-grade CCD calibration and coaddition over xarray, Dask and Zarr."""

from importlib.metadata import version

__version__ = version("skyloom")
__all__ = ["__version__"]
