"""What several folders of tests share."""

from collections.abc import Callable, Iterator

import pytest
from onnx_folders import Exported, export


@pytest.fixture(scope="session", autouse=True)
def _no_cache_of_the_user() -> Iterator[None]:
    """No test takes what an earlier one, or the user's own work, has kept of a baseline."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LF_EXPORT_CACHE", "")
        yield


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """A case of `onnx_folders`, made when it is first asked for."""
    made: dict[str, Exported] = {}

    def get(name: str) -> Exported:
        if name not in made:
            made[name] = export(name, tmp_path_factory.mktemp(name))
        return made[name]

    return get
