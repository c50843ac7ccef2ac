import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from harness.server import Server  # noqa: E402


@pytest.fixture(scope="module")
def server():
    settings = {"extendedTypesEnabled": "true", "enforceQuota": "true"}
    with Server(settings, {"znode.container.checkIntervalMs": "200"}) as running:
        yield running
