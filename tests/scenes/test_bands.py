"""The tables of Sentinel-2, and reading band, date and baseline from names."""

import datetime

import pytest

from earthvlm.scenes import bands as sentinel2
from earthvlm.scenes.bands import BANDS, find_baseline, find_date, normalise_band_name


def test_bands_are_in_olmoearths_order():
    from olmoearth_pretrain_minimal.olmoearth_pretrain_v1.utils.constants import Modality

    assert list(BANDS) == list(Modality.SENTINEL2_L2A.band_order)


def test_every_order_and_scale_speaks_of_the_same_bands():
    assert set(sentinel2.FILE_ORDER_12) == set(BANDS)
    assert set(sentinel2.FILE_ORDER_13) == {*BANDS, "B10"} == set(sentinel2.WAVELENGTHS)
    chatearthnet = [band for bands in sentinel2.CHATEARTHNET_FOLDERS.values() for band in bands]
    assert set(chatearthnet) == set(sentinel2.EIGHT_BIT_SCALE)
    wavelengths = [sentinel2.WAVELENGTHS[band] for band in sentinel2.FILE_ORDER_13]
    assert wavelengths == sorted(wavelengths)


@pytest.mark.parametrize(
    ("label", "band"),
    [
        ("B02", "B02"),
        ("B2", "B02"),
        ("b8a", "B8A"),
        ("B08A", "B8A"),
        ("Band 8A", "B8A"),
        ("band_11", "B11"),
        ("B4, central wavelength 665 nm", "B04"),
        ("T33UUU_20170216T102101_B12", "B12"),
        ("20200101_B2", "B02"),
        ("Blue", "B02"),
        ("red_edge_1", "B05"),
        ("nir", "B08"),
        ("nir08", "B8A"),
        ("swir22", "B12"),
        ("B10", "B10"),
        ("B13", None),
        ("B0", None),
        ("SR_B2", None),
        ("sur_refl_b01", None),
        ("SCL", None),
        ("QA60", None),
        ("probability", None),
        ("", None),
        (None, None),
    ],
)
def test_band_names(label, band):
    assert normalise_band_name(label) == band


@pytest.mark.parametrize(
    ("texts", "date"),
    [
        (["S2B_MSIL2A_20220308T105111_N0510_R051_T31TDG"], datetime.date(2022, 3, 8)),
        (["boadella_2020-01-13_L2A"], datetime.date(2020, 1, 13)),
        (["2021:07:16 10:50:31"], datetime.date(2021, 7, 16)),
        (["T33UUU_20170216T102101_B02"], datetime.date(2017, 2, 16)),
        (["1999-01-01", "2020-02-02"], datetime.date(2020, 2, 2)),  # before the satellite flew
        (["2020-02-31"], None),
        (["scene_120200113000"], None),
        (["2199-01-01"], None),
        ([""], None),
        (["HLS.S30.T31TDG.2021197T105031.v2.0.B02"], datetime.date(2021, 7, 16)),
        (["S2A_OPER_MSI_L1C_TL_EPA__20170105T123456_A004978_T31TDG_B02"], None),
        (
            ["S2A_OPER_PRD_MSIL1C_PDMC_20170106T022911_R051_V20160605T105031_20160605T105031"],
            datetime.date(2016, 6, 5),
        ),
    ],
)
def test_dates(texts, date):
    assert find_date(*texts) == date


@pytest.mark.parametrize(
    ("text", "baseline"),
    [
        ("S2A_MSIL2A_20180305T105021_N0500_R051_T31TDG_20230817T101112", 500),
        ("05.10", 510),
        ("S2A_MSIL1C_20170216T102101_N0204_R065_T33UUU", 204),
        ("a_N12_scene", None),
        ("", None),
    ],
)
def test_baselines(text, baseline):
    assert find_baseline(text) == baseline
