"""The `transformers` runtime, with the kernels that gptqmodel chooses, gives the logits of the `torch` runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import tiny_model
from walk_data import random_data

from lf_export.checkpoint.index import open_checkpoint
from lf_export.formats import FORMATS
from lf_export.runtimes import runtime
from lf_export.walk.stream import walk

PROMPT = [5, 17, 40, 41, 90, 7, 8, 9, 200, 33]


def _quantized(folder: Path, **options: Any) -> Path:
    base = open_checkpoint(tiny_model(folder / "base"))
    out = folder / "gptq"
    out.mkdir()
    kind = FORMATS["gptq"]
    data = random_data([40, 30, 50, 20, 60, 44, 31, 52, 47])
    target = kind.open(base, out, kind.options.model_validate({"group_size": 32, **options}), data.digest)
    walk(base, data, [target])
    target.finish()
    return out


# gptqmodel warns of its own use of torch and of what it will remove
@pytest.mark.filterwarnings("ignore")
def test_both_runtimes_give_the_same_logits_of_a_gptq_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPTQMODEL_CPU_WORKERS", "1")
    folder = _quantized(tmp_path, bits=4, sym=False)
    (ours,) = runtime("torch").open_session(folder, 1).score((), [PROMPT], [1])
    (theirs,) = runtime("transformers").open_session(folder, 1).score((), [PROMPT], [1])
    spread = float(ours.std())
    assert spread > 0.1  # the logits say something
    # their CPU kernels multiply in bfloat16: eight bits of mantissa
    np.testing.assert_allclose(theirs, ours, atol=0.05 * spread)
