"""Rasters that GDAL reads: their files, the part that is read, bands, values and reflectance."""
