"""What the tests share: the real model where a prepared folder is named, and what is skipped without real data."""

import os

import pytest
from hypothesis import settings

# Before torch is imported: on two cores two workers of two threads each wait for one another, six times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from steerlab.models import ModelHandle  # noqa: E402

# A machine that is busy with other work is no fault of what is tested.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on real data are skipped, and told so, where no mirror is named."""
    if not os.environ.get("STEERLAB_MIRROR"):
        for item in items:
            if item.get_closest_marker("real_data"):
                item.add_marker(pytest.mark.skip(reason="STEERLAB_MIRROR names no mirror"))


@pytest.fixture(scope="session")
def real_model() -> ModelHandle:
    """The prepared model folder that STEERLAB_MODEL names; tests that need real weights are skipped without."""
    folder = os.environ.get("STEERLAB_MODEL")
    if not folder:
        pytest.skip("needs real weights: set STEERLAB_MODEL to a prepared model folder")
    return ModelHandle(folder)
