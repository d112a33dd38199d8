"""Which tokens weigh the inputs of each tensor of a layer, where experts were sent too few, and what is said of it."""

from collections.abc import Iterable, Mapping, Sequence

from lf_export.formats.gguf_arch import GgufTensor
from lf_export.formats.gguf_imatrix import Imatrix
from lf_export.formats.gguf_writer import GgufFile
from lf_export.quant.moments import Moments
from lf_export.quant.solve import enough
from lf_export.walk.view import LayerView

# What is done for an expert's matrix that saw too few tokens.
_POOLED = "calibrated on the tokens of all experts of the layer"
_OWN = "llama.cpp's own codes"
_FEW = f"{_OWN}, weighed by these tokens"
_UNWEIGHED = f"{_OWN}, unweighed"
_NOT_CALIBRATED = "rounded without calibration"


def weigh(imatrix: Imatrix, tensors: Iterable[GgufTensor], view: LayerView) -> None:
    """Take the importance of the inputs of a layer's tensors.

    Where an expert saw too few tokens, those of all experts of the layer serve its gate and up: they read the same
    input. Its down has the few that it saw, or none.

    Args:
        imatrix: where it is kept.
        tensors: those of the layer.
        view: the layer.

    Raises:
        StepError: no token reached a tensor.
    """
    for tensor in tensors:
        linears = [_linear(source.name, view) for source in tensor.sources]
        if linears and all(linear in view.moments for linear in linears):
            imatrix.add(tensor.name, *(_serving(linear, view) for linear in linears))


def remedies(
    tensors: Iterable[GgufTensor], files: Sequence[GgufFile], view: LayerView, *, given: bool
) -> dict[str, str]:
    """What is done for each matrix of the layer's experts if it saw too few tokens, by its module's full name.

    Args:
        tensors: those of the layer.
        files: what takes calibration.
        view: the layer.
        given: whether the importance of inputs is from a file.
    """
    found: dict[str, str] = {}
    for tensor in tensors:
        calibrated = any(file.planned[tensor.name].calibrated for file in files)
        for source in tensor.experts:
            linear = _linear(source.name, view)
            if not calibrated:
                remedy = _NOT_CALIBRATED
            elif _serving(linear, view) is not view.moments[linear]:
                remedy = _POOLED
            elif given:
                remedy = _OWN
            else:
                remedy = _FEW if view.moments[linear].count else _UNWEIGHED
            found[source.name.removesuffix(".weight")] = remedy
    return found


def unseen_line(path_name: str, unseen: Mapping[str, Sequence[int]]) -> str:
    """What is said of experts that no token reached in an importance matrix from a file."""
    shown = [f"{name.removesuffix('.weight')} {', '.join(map(str, numbers))}" for name, numbers in unseen.items()]
    more = f" and {len(shown) - 4} more tensors" if len(shown) > 4 else ""
    return f"{path_name}: no token reached some experts, their inputs count alike: {'; '.join(shown[:4])}{more}"


def _linear(source: str, view: LayerView) -> str:
    return source.removeprefix(f"{view.prefix}.").removesuffix(".weight")


def _serving(linear: str, view: LayerView) -> Moments:
    """The moments of a linear's own tokens, or where these are too few of those of all experts."""
    return enough(view.moments[linear], None, view.pools.get(linear))[0]
