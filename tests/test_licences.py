"""The list of licences that may be installed."""

from __future__ import annotations

from tests.licences import find_others, read_locked


def test_other_licences_are_found():
    licences = {
        "numpy": "BSD-3-Clause AND MIT",
        "Pillow": "MIT-CMU",
        "tqdm": "MPL-2.0 AND MIT",
        "scipy": "GPL-3.0 OR MIT",
        "tokenizers": "Proprietary",
        "not-locked": "AGPL",
    }
    packages = [{"Name": name, "License": licence} for name, licence in licences.items()]
    found = find_others(packages, read_locked())
    assert found == ["scipy: GPL-3.0 OR MIT", "tokenizers: Proprietary"]
