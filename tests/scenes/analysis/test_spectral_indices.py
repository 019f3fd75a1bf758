"""What is measured in scenes, by hand-made spectra and by real scenes."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pytest

from earthvlm.data.drawn.spectra import CURVES, POINTS, WAVELENGTH
from earthvlm.scenes.analysis.spectral_indices import (
    COVER_CLASSES,
    NO_DATA,
    SpectralIndices,
    classify_pixels,
    measure,
    percent,
)
from earthvlm.scenes.bands import BANDS as ALL_BANDS
from earthvlm.scenes.scene import Scene
from tests.support.made_spectra import BANDS, SPECTRA, paint

# Spectra of real pixels, reflectance x 10000 in B02, B03, B04, B08, B11 and B12: medians of places
# that were once mistaken for another cover.
SIX_BANDS = ("B02", "B03", "B04", "B08", "B11", "B12")
MISTAKEN = {
    "sea over pale sand": ((1935, 2269, 2276, 2165, 151, 94), "water"),
    "turbid river": ((684, 952, 838, 857, 402, 275), "water"),
    "peat-brown lake": ((130, 103, 86, 140, 108, 78), "water"),
    "black burnt ground": ((85, 87, 107, 181, 1100, 1194), "bare or built"),
    "cloud shadow on fields": ((161, 125, 118, 229, 209, 165), "sparse vegetation"),
    "plants in a lagoon": ((637, 946, 614, 1351, 220, 146), "sparse vegetation"),
    "snow in the shade": ((2067, 1765, 1692, 2247, 237, 258), "snow"),
}


def field_of(spectrum: tuple[int, ...], bands=SIX_BANDS, side: int = 24, **known) -> Scene:
    """A scene of one spectrum, with a little noise, and forest in its lower half."""
    forest = [(250, 450, 300, 3200, 1600, 700)[SIX_BANDS.index(band)] for band in bands]
    rng = np.random.default_rng(0)
    values = np.tile(np.array(spectrum, np.float32), (side, side, 1))
    values[side // 2 :] = forest
    values *= rng.uniform(0.97, 1.03, (side, side, 1)).astype(np.float32)
    return Scene.from_array(values, bands, **known)


def upper_half(scene: Scene) -> str:
    """The cover that most of a scene's upper half was classified as."""
    covers = classify_pixels(scene).covers
    return COVER_CLASSES[np.bincount(covers[: len(covers) // 2].ravel()).argmax()]


def test_each_cover_is_told_by_its_spectrum():
    covers = classify_pixels(paint(*COVER_CLASSES)).covers
    assert covers[0, ::8].tolist() == list(range(len(COVER_CLASSES)))
    measured = measure(paint("water", "water", "dense vegetation", "bare or built"))
    assert measured.share("water") == 0.5 and measured.vegetation == 0.25
    assert sum(measured.shares.values()) == pytest.approx(1)
    assert measured.water_index == "MNDWI"


@pytest.mark.parametrize("name", MISTAKEN)
def test_covers_that_look_alike_are_distinguished(name):
    spectrum, cover = MISTAKEN[name]
    assert upper_half(field_of(spectrum)) == cover


# What a pixel of a cover is measured as; land without plants may be thinly covered too.
MEASURED_AS = {
    "water": {"water"},
    "bare soil": {"bare or built"},
    "snow or ice": {"snow"},
    "burnt land": {"bare or built", "sparse vegetation"},
    "sparse vegetation": {"sparse vegetation"},
    "cropland or grass": {"dense vegetation"},
    "tree cover": {"dense vegetation", "sparse vegetation"},
}


@pytest.mark.parametrize("cover", MEASURED_AS)
def test_published_spectra_are_measured_as_what_they_are(cover):
    for curve in CURVES[cover]:
        spectrum = np.interp(WAVELENGTH, POINTS, curve) * 1e4
        bands = [ALL_BANDS.index(band) for band in SIX_BANDS]
        assert upper_half(field_of(tuple(spectrum[bands]))) in MEASURED_AS[cover], curve


def test_snow_in_deep_shade_needs_snow_in_the_sun():
    shade = (1353, 1233, 927, 860, 100, 80)  # as a lake under smoke, too
    assert upper_half(field_of(shade)) != "snow"
    values = np.tile(np.array(shade, np.float32), (24, 24, 1))
    values[18:] = (8500, 8500, 8200, 7000, 600, 400)
    winter = {"date": datetime.date(2020, 1, 9), "longitude": 9.0, "latitude": 46.5}
    snowy = Scene.from_array(values, SIX_BANDS, boa_offset=False, **winter)
    assert (classify_pixels(snowy).covers == COVER_CLASSES.index("snow")).all()


def test_water_is_found_by_b12_where_b11_is_missing():
    bands = ("B02", "B03", "B04", "B08", "B12")
    assert upper_half(field_of((318, 418, 162, 82, 104), bands)) == "water"
    assert upper_half(field_of((85, 87, 107, 181, 1194), bands)) != "water"


def test_cover_is_measured_without_blue():
    bands = SIX_BANDS[1:]
    assert upper_half(field_of((8500, 8200, 7000, 600, 400), bands)) == "snow"
    assert upper_half(field_of((4200, 4300, 4500, 3500, 2600), bands)) == "cloud"
    assert upper_half(field_of((418, 162, 82, 60, 40), bands)) == "water"


def test_lake_under_haze_is_still_water():
    lake = field_of((318, 418, 162, 82, 60, 40))
    for haze in (550, 700):
        # As in Boadella on 2020-01-13: more in the near infrared than in the visible bands.
        added = np.array([1.04, 1.03, 1.02, 1.3, 0.95, 0.8], np.float32) * haze
        values = lake.reflectance[:, :, [ALL_BANDS.index(band) for band in SIX_BANDS]] + added
        hazy = Scene.from_array(values, SIX_BANDS, boa_offset=False)
        measured = measure(hazy)
        assert measured.is_hazy and measured.haze == pytest.approx(haze / 1e4, rel=0.4)
        assert measured.share("water") == pytest.approx(0.5, abs=0.02)
        assert measured.share("dense vegetation") == pytest.approx(0.5, abs=0.02)
        assert measured.error("water") >= measure(lake).error("water")
    assert not measure(lake).is_hazy


def test_bare_ground_without_a_dark_pixel_is_not_hazy():
    assert not measure(paint("bare or built")).is_hazy


def test_roofs_are_no_cloud_and_clouds_are():
    for side, is_cloud in ((4, False), (12, True)):
        values = np.tile(np.array((250, 450, 300, 3200, 1600, 700), np.float32), (48, 48, 1))
        values[10 : 10 + side, 10 : 10 + side] = (4000, 4200, 4200, 4500, 3500, 2600)
        share = measure(Scene.from_array(values, SIX_BANDS)).share("cloud")
        assert share == (pytest.approx(side**2 / 48**2) if is_cloud else 0)


def test_smooth_white_is_cloud_where_snow_is_unlikely():
    rng = np.random.default_rng(0)
    white = np.array((5820, 5688, 5536, 5624, 939, 900), np.float32)
    smooth = np.tile(white, (32, 32, 1)) * rng.uniform(0.999, 1.001, (32, 32, 1))
    fine = np.tile(white, (32, 32, 1)) * rng.uniform(0.994, 1.006, (32, 32, 1))
    rough = np.tile(white, (32, 32, 1)) * rng.uniform(0.8, 1.1, (32, 32, 1))

    def share(values: np.ndarray, latitude: float | None, month: int) -> float:
        date = datetime.date(2018, month, 23)
        known = {"longitude": 3.0, "latitude": latitude, "date": date, "boa_offset": False}
        return measure(Scene.from_array(values, SIX_BANDS, **known)).share("snow")

    assert share(smooth, 51.0, 9) == 0 and share(smooth, -45.0, 1) == 0
    assert share(smooth, 51.0, 1) > 0.9 and share(smooth, 72.0, 9) > 0.9
    assert share(rough, 46.0, 8) > 0.9
    assert share(smooth, None, 9) == 0
    assert share(fine, None, 9) > 0.9 and share(fine, 51.0, 9) == 0


def test_shadow_makes_shares_uncertain():
    clear = measure(field_of((684, 952, 838, 857, 402, 275)))
    shaded = measure(field_of((161, 125, 118, 229, 209, 165)))
    assert clear.dark == 0 and shaded.dark == pytest.approx(0.5)
    assert shaded.error("water") > 0.4 > clear.error("water")


def test_error_of_a_share_has_a_floor():
    assert SpectralIndices({"water": 0.5}, "MNDWI").error("water") == 0.02
    assert SpectralIndices({}, "MNDWI", {"water": 0.1}).error("water", "snow") == 0.1


def test_pixels_without_data_are_not_seen():
    scene = field_of((318, 418, 162, 82, 60, 40))
    values = scene.reflectance[:, :, [ALL_BANDS.index(band) for band in SIX_BANDS]].copy()
    values[:6] = np.nan
    classified = classify_pixels(Scene.from_array(values, SIX_BANDS))
    assert (classified.covers[:6] == NO_DATA).all() and not classified.seen[:6].any()
    assert classified.seen[6:].all()


def test_black_water_is_water_though_its_index_is_noise():
    values = np.full((16, 16, 5), (130, 105, 88, 145, 115), np.float32)
    values[:, :8] = SPECTRA["dense vegetation"]
    assert measure(Scene.from_array(values, BANDS)).share("water") == 0.5


def test_what_cannot_be_measured_is_not():
    assert measure(paint("water", bands=("B02", "B03", "B04"))) is None
    without_short_wave = measure(paint("water", bands=("B02", "B03", "B04", "B08")))
    assert without_short_wave.water_index == "NDWI"
    assert without_short_wave.share("water") == 1
    assert "cloud" not in without_short_wave.shares


def test_percent_is_readable():
    assert [percent(0), percent(0.001), percent(0.123)] == ["none", "under 1\u00a0%", "12\u00a0%"]


@pytest.mark.slow
def test_boadella_reservoir_is_found_under_haze(practice_data: Path):
    hazy, full, summer, low, cloudy = (
        measure(Scene.open(practice_data / "scenes" / f"boadella_{date}_L2A.tif"))
        for date in ("2020-01-13", "2020-02-02", "2020-09-14", "2022-03-08", "2020-01-18")
    )
    assert hazy.is_hazy and not any(m.is_hazy for m in (full, summer, low, cloudy))
    assert hazy.share("water") == pytest.approx(summer.share("water"), abs=0.02)
    assert hazy.vegetation == pytest.approx(full.vegetation, abs=0.05)
    assert full.share("water") > 0.19 and low.share("water") < 0.13
    assert cloudy.share("cloud") > 0.9
