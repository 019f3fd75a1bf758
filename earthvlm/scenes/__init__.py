"""A Sentinel-2 image: bands, readers, spectral indices, tiling; imports no other package."""
