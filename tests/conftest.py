"""Fixtures every folder uses."""

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("CASCADE_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real recordings, which is no part of the project."""
    if not SHARED.is_dir():
        pytest.skip("no real recordings here (CASCADE_SHARED_DATA)")
    return SHARED
