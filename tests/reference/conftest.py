"""What every reference test needs."""

import importlib.util

import pytest


@pytest.fixture(autouse=True, scope="session")
def _peft_without_gptqmodel() -> None:
    """PEFT refuses any LoRA where gptqmodel is installed without optimum: let it believe (it caches) that none is."""
    from peft.import_utils import is_gptqmodel_available

    find_spec = importlib.util.find_spec
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None if name == "gptqmodel" else find_spec(name))
        is_gptqmodel_available.cache_clear()
        assert not is_gptqmodel_available()
