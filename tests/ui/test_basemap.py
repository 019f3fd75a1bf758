"""The online map that the owner of a server may name."""

from __future__ import annotations

import pytest

from earthvlm.ui.basemap import EXAMPLE, VARIABLE, read_basemap
from earthvlm.ui.security.page_policy import make_policy


def test_an_online_map_has_an_origin_and_a_credit(monkeypatch):
    monkeypatch.setenv(VARIABLE, "")
    assert read_basemap() is None
    monkeypatch.setenv(VARIABLE, EXAMPLE)
    basemap = read_basemap()
    assert basemap is not None and basemap.origin == "https://tile.openstreetmap.org"
    assert ">© OpenStreetMap contributors</a>" in basemap.credit
    monkeypatch.setenv(VARIABLE, "http://[::1]:80/{z}/{x}/{y}?key=1 the <b>town</b>")
    basemap = read_basemap()
    assert basemap is not None and basemap.origin == "http://[::1]:80"
    assert basemap.credit == "the &lt;b&gt;town&lt;/b&gt;"


@pytest.mark.parametrize(
    "text",
    [
        "yes",
        "https://example.org/{z}/{x}/{y}.png",  # nobody is credited
        "https://example.org/{z}/{x}/{y}.png https://example.org/",
        "https://example.org/{x}/{y}.png Example",
        "https://{s}.example.org/{z}/{x}/{y}.png Example",
        "https://example.org/{s}/{z}/{x}/{y}.png Example",
        "https://example.org;script-src/{z}/{x}/{y}.png Example",
        "//example.org/{z}/{x}/{y}.png Example",
    ],
)
def test_an_online_map_that_does_not_fit_is_refused(monkeypatch, text: str):
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(ValueError, match=f"{VARIABLE} is .*; give the address of map tiles"):
        read_basemap()


def test_the_policy_allows_pictures_of_that_origin_alone():
    plain, allowing = make_policy(), make_policy(pictures="https://example.org")
    assert "img-src 'self' data: blob:; " in plain
    assert allowing == plain.replace("data: blob:; ", "data: blob: https://example.org; ")
