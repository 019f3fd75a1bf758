"""What tests of several commands share."""

from __future__ import annotations

from pathlib import Path

import pytest

import earthvlm

BUNDLED = Path(earthvlm.__file__).parent / "bundled"
needs_bundled_bridge = pytest.mark.skipif(
    not (BUNDLED / "bridge" / "config.json").is_file(),
    reason="the bundled bridge has not been built: earthvlm/bundled/bridge has no config.json",
)
needs_bundled_index = pytest.mark.skipif(
    not any((BUNDLED / "embeddings").glob("*.parquet")),
    reason="the bundled embeddings have not been built: earthvlm/bundled/embeddings is empty",
)


def assert_one_sentence(code: int, captured, *words: str) -> None:
    assert code == 2
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert captured.err.count("\n") == 1 and captured.err.endswith("\n"), captured.err
    assert captured.err.startswith("earthvlm: ")
    assert len(captured.err) < 500
    for word in words:
        assert word in captured.err
