"""PEFT without gptqmodel: import this before adapters are put on a model.

PEFT asks for `optimum` as soon as gptqmodel is installed, even where no layer is quantized (seen with peft 0.21.2
and gptqmodel 7.6.0), and optimum is no dependency of this project. PEFT keeps its first answer to "is gptqmodel
there?", so the question is put once while gptqmodel cannot be found.
"""

import importlib.util
from typing import Any
from unittest.mock import patch

from peft import import_utils

_find = importlib.util.find_spec


def _find_spec(name: str, package: str | None = None) -> Any:
    return None if name == "gptqmodel" else _find(name, package)


import_utils.is_gptqmodel_available.cache_clear()
with patch.object(importlib.util, "find_spec", _find_spec):
    import_utils.is_gptqmodel_available()
