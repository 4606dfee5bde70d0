"""What the tests share: tiny random models, and the real one where a prepared folder of it is named."""

import os

import pytest

from steerlab.models import ModelHandle


@pytest.fixture(scope="session")
def real_model() -> ModelHandle:
    """The prepared model folder that STEERLAB_MODEL names; tests that need real weights are skipped without."""
    folder = os.environ.get("STEERLAB_MODEL")
    if not folder:
        pytest.skip("needs real weights: set STEERLAB_MODEL to a prepared model folder")
    return ModelHandle(folder)
