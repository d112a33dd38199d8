"""llama.cpp's importance matrix, made from the moments of the calibration pass and saved as a file that it accepts."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lf_export.errors import StepError
from lf_export.formats.gguf_arch import gguf_library
from lf_export.quant.moments import Moments

FloatArray = npt.NDArray[np.float32]


class Imatrix:
    """The weighted sum of squares of each input channel, by GGUF tensor name.

    Source: llama.cpp, `tools/imatrix/imatrix.cpp` (`save_imatrix`) and `tools/quantize/quantize.cpp` (`load_imatrix`).
    """

    def __init__(
        self, sums: Mapping[str, FloatArray] | None = None, counts: Mapping[str, np.float32] | None = None
    ) -> None:
        self._sums: dict[str, FloatArray] = dict(sums or {})
        self._counts: dict[str, np.float32] = dict(counts or {})

    def __len__(self) -> int:
        return len(self._sums)

    def add(self, name: str, moments: Moments) -> None:
        """Take the diagonal of H and the sum of the weights for the tensor `name`.

        Raises:
            StepError: no token reached the tensor.
        """
        if moments.weight_sum <= 0:
            raise StepError(f"no calibration token reached {name}: it has no importance")
        self._sums[name] = moments.upper.diagonal().numpy().astype(np.float32)
        self._counts[name] = np.float32(moments.weight_sum)

    def importance(self, name: str) -> FloatArray:
        """The mean square of each input channel, [width], rounded as llama-quantize rounds it.

        Raises:
            StepError: the calibration pass did not reach the tensor.
        """
        if name not in self._sums:
            raise StepError(f"the calibration pass did not reach {name}: it has no importance")
        return self._sums[name] / self._counts[name]

    def snapshot(self) -> dict[str, FloatArray]:
        """For each tensor its sums, and last the sum of the weights, [width + 1]."""
        return {name: np.append(sums, self._counts[name]) for name, sums in self._sums.items()}

    def restore(self, arrays: Mapping[str, FloatArray]) -> None:
        """Take what `snapshot` gave."""
        self._sums = {name: array[:-1] for name, array in arrays.items()}
        self._counts = {name: np.float32(array[-1]) for name, array in arrays.items()}

    def save(self, path: Path, dataset: str) -> None:
        """Write the matrix as a GGUF of type `imatrix`; `dataset` says which calibration it is from."""
        gguf = gguf_library()
        writer = gguf.GGUFWriter(path, arch="")  # an imatrix has no architecture
        writer.add_type("imatrix")
        writer.add_array(gguf.Keys.IMatrix.DATASETS, [dataset])
        writer.add_uint32(gguf.Keys.IMatrix.CHUNK_COUNT, 1)
        writer.add_uint32(gguf.Keys.IMatrix.CHUNK_SIZE, round(float(max(self._counts.values(), default=np.float32(1)))))
        for name in sorted(self._sums):
            writer.add_tensor(f"{name}.in_sum2", self._sums[name].reshape(1, -1))
            writer.add_tensor(f"{name}.counts", self._counts[name].reshape(1, 1))
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()
