"""Scenes in xarray datasets, netCDF files and Zarr stores."""
