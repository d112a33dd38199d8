"""What several folders of tests share."""

from collections.abc import Callable

import pytest
from onnx_folders import Exported, export


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """A case of `onnx_folders`, made when it is first asked for."""
    made: dict[str, Exported] = {}

    def get(name: str) -> Exported:
        if name not in made:
            made[name] = export(name, tmp_path_factory.mktemp(name))
        return made[name]

    return get
