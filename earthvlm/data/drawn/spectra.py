"""Reflectance spectra of surfaces and clouds that training images lack, for drawing them.

Each spectrum is a curve through a few points, read off published measurements and rounded: water,
soils and snow from the USGS Spectral Library 7 (Kokaly et al., 2017) and the ECOSTRESS library
(Meerdink et al., 2019); snow also Warren (1982) and Dozier et al. (2009); burnt ground Lentile et
al. (2006); clouds as in `CLOUD_SPECTRUM` of `augmentation`. They are prototypes to vary around.
"""

from __future__ import annotations

import numpy as np

from earthvlm.scenes.bands import BANDS, REFLECTANCE_SCALE, WAVELENGTHS

# Wavelengths of the points in nm, about those of B01, B02, B03, B04, B05, B07, B8A, B11 and B12.
POINTS = (443, 490, 560, 665, 705, 783, 865, 1610, 2190)
CURVES: dict[str, tuple[tuple[float, ...], ...]] = {
    "water": (
        (0.030, 0.028, 0.022, 0.010, 0.008, 0.006, 0.005, 0.003, 0.002),  # clear and deep
        (0.014, 0.012, 0.012, 0.012, 0.010, 0.008, 0.007, 0.004, 0.003),  # brown, of bogs
        (0.020, 0.018, 0.018, 0.008, 0.007, 0.006, 0.006, 0.004, 0.003),  # dark lake
        (0.050, 0.070, 0.100, 0.110, 0.100, 0.050, 0.040, 0.008, 0.005),  # turbid river
        (0.080, 0.105, 0.150, 0.180, 0.175, 0.110, 0.090, 0.012, 0.008),  # very turbid
        (0.025, 0.030, 0.055, 0.030, 0.045, 0.022, 0.018, 0.006, 0.004),  # green with algae
        (0.120, 0.150, 0.170, 0.080, 0.035, 0.015, 0.012, 0.005, 0.003),  # shallow over sand
        (0.070, 0.085, 0.080, 0.030, 0.020, 0.012, 0.010, 0.005, 0.003),  # coastal sea
        (0.055, 0.065, 0.085, 0.095, 0.100, 0.090, 0.085, 0.045, 0.030),  # flooded field
    ),
    "bare soil": (
        (0.120, 0.160, 0.220, 0.300, 0.330, 0.360, 0.390, 0.480, 0.440),  # dune sand
        (0.050, 0.065, 0.110, 0.220, 0.250, 0.280, 0.310, 0.420, 0.380),  # red sand
        (0.220, 0.270, 0.340, 0.410, 0.430, 0.450, 0.470, 0.520, 0.480),  # white sand, beach
        (0.420, 0.480, 0.540, 0.580, 0.590, 0.590, 0.580, 0.400, 0.280),  # salt crust
        (0.070, 0.085, 0.105, 0.125, 0.135, 0.150, 0.160, 0.210, 0.190),  # grey rock
        (0.050, 0.058, 0.070, 0.085, 0.090, 0.098, 0.105, 0.130, 0.120),  # basalt, lava
        (0.060, 0.075, 0.105, 0.150, 0.170, 0.200, 0.225, 0.310, 0.270),  # brown loam
        (0.100, 0.125, 0.170, 0.230, 0.250, 0.280, 0.300, 0.370, 0.310),  # steppe soil
        (0.170, 0.200, 0.240, 0.280, 0.295, 0.310, 0.320, 0.350, 0.290),  # limestone, gravel
        (0.040, 0.050, 0.075, 0.130, 0.150, 0.175, 0.200, 0.260, 0.220),  # laterite, dark red
        (0.050, 0.058, 0.075, 0.095, 0.105, 0.120, 0.130, 0.120, 0.075),  # wet mud
        (0.060, 0.072, 0.095, 0.120, 0.132, 0.148, 0.160, 0.180, 0.130),  # wet field
    ),
    "snow or ice": (
        (0.950, 0.950, 0.950, 0.930, 0.920, 0.880, 0.840, 0.130, 0.100),  # fresh, fine
        (0.850, 0.850, 0.850, 0.820, 0.800, 0.740, 0.680, 0.060, 0.040),  # old, coarse
        (0.550, 0.570, 0.590, 0.590, 0.580, 0.550, 0.510, 0.060, 0.040),  # dirty, melting
        (0.520, 0.540, 0.530, 0.430, 0.400, 0.320, 0.260, 0.020, 0.015),  # glacier ice
        (0.350, 0.360, 0.360, 0.330, 0.320, 0.290, 0.250, 0.030, 0.020),  # lake ice, slush
    ),
    "burnt land": (
        (0.028, 0.032, 0.040, 0.050, 0.055, 0.065, 0.075, 0.140, 0.130),  # char
        (0.040, 0.046, 0.056, 0.072, 0.082, 0.100, 0.115, 0.190, 0.180),  # char and soil
        (0.055, 0.062, 0.075, 0.092, 0.100, 0.112, 0.122, 0.170, 0.165),  # with some ash
        (0.022, 0.025, 0.030, 0.036, 0.040, 0.050, 0.060, 0.100, 0.110),  # burnt forest
        (0.020, 0.022, 0.026, 0.030, 0.032, 0.036, 0.040, 0.060, 0.060),  # black, just burnt
    ),
    "sparse vegetation": (
        (0.050, 0.065, 0.100, 0.150, 0.180, 0.225, 0.250, 0.330, 0.250),  # steppe
        (0.060, 0.080, 0.115, 0.165, 0.195, 0.235, 0.260, 0.360, 0.300),  # dry grass
        (0.035, 0.050, 0.085, 0.130, 0.160, 0.210, 0.240, 0.290, 0.210),  # shrubs on red soil
        (0.030, 0.042, 0.065, 0.085, 0.115, 0.180, 0.205, 0.230, 0.150),  # maquis, heath
        (0.040, 0.050, 0.072, 0.085, 0.115, 0.190, 0.215, 0.210, 0.130),  # tundra
    ),
    "cropland or grass": (
        (0.025, 0.032, 0.065, 0.040, 0.105, 0.350, 0.400, 0.200, 0.100),  # meadow
        (0.020, 0.026, 0.058, 0.030, 0.095, 0.420, 0.480, 0.180, 0.080),  # lush crop
        (0.040, 0.050, 0.085, 0.085, 0.130, 0.260, 0.300, 0.260, 0.160),  # ripening
        (0.025, 0.030, 0.050, 0.035, 0.080, 0.300, 0.340, 0.140, 0.060),  # wet, rice
    ),
    "tree cover": (
        (0.015, 0.019, 0.035, 0.020, 0.055, 0.220, 0.260, 0.110, 0.050),  # broad-leaved
        (0.011, 0.014, 0.024, 0.016, 0.038, 0.140, 0.165, 0.070, 0.030),  # conifers
        (0.018, 0.022, 0.042, 0.022, 0.070, 0.300, 0.350, 0.150, 0.060),  # rain forest
        (0.018, 0.022, 0.036, 0.028, 0.060, 0.200, 0.230, 0.090, 0.035),  # mangrove
        (0.024, 0.030, 0.050, 0.044, 0.080, 0.180, 0.210, 0.150, 0.080),  # open woodland
        (0.026, 0.032, 0.048, 0.060, 0.085, 0.140, 0.165, 0.160, 0.095),  # leafless in winter
    ),
}
WAVELENGTH = np.array([WAVELENGTHS[band] for band in BANDS], np.float32)


def draw_spectrum(cover: str, rng: np.random.Generator) -> np.ndarray:
    """Draw a plausible spectrum of a cover, reflectance x 10000, `[12]` in the order of BANDS.

    It lies between two prototypes, is brighter or darker, and every band varies a little.
    """
    curves = CURVES[cover]
    one, other = (np.array(curves[i]) for i in rng.integers(len(curves), size=2))
    curve = np.exp(np.average(np.log([one, other]), axis=0, weights=_split(rng)))
    values = np.interp(WAVELENGTH, POINTS, curve)
    values = values * np.exp(rng.normal(0, 0.12)) * np.exp(rng.normal(0, 0.03, len(BANDS)))
    return (values * REFLECTANCE_SCALE).astype(np.float32)


def _split(rng: np.random.Generator) -> tuple[float, float]:
    """Weights of two prototypes: mostly near one of them."""
    part = float(rng.beta(0.5, 0.5))
    return part, 1 - part
