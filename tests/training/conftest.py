"""Fixtures of the training tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.generated_chatearthnet import write_generated_chatearthnet


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated tiles: 12 to train on and 2 to validate on. Tests do not write there."""
    folder = tmp_path_factory.mktemp("generated")
    write_generated_chatearthnet(folder, train=12, val=2)
    return folder
