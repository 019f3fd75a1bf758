"""A bridge's config.json: other formats and missing entries are rejected."""

from __future__ import annotations

import json

import pytest

from earthvlm import __version__
from earthvlm.bridge.model import OlmoEarthVLMBridge


def test_other_format_names_the_version_that_reads_it(saved):
    config = json.loads((saved / "config.json").read_text())
    assert (config["format_version"], config["earthvlm_version"]) == (1, __version__)
    config |= {"format_version": 2, "earthvlm_version": "7.1", "sees_in_the_dark": True}
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"reads format 1: pip install 'earthvlm==7\.1'\.$"):
        OlmoEarthVLMBridge.from_pretrained(saved)


@pytest.mark.parametrize("entry", ["patch_size", "use_lora", "bands"])
def test_config_with_missing_entry_is_rejected(saved, entry):
    config = json.loads((saved / "config.json").read_text())
    del config[entry]
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=rf"config\.json .*lacks {entry}\.$"):
        OlmoEarthVLMBridge.from_pretrained(saved)
