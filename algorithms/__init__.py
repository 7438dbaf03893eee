"""Pure functions over xarray datasets: no files, no clusters, no globals."""
