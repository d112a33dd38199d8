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
    """The weighted sum of squares of each input channel, by GGUF tensor name: [matrices, width].

    A tensor has one matrix, or one of each expert; each expert has its own sums and its own count.

    Source: llama.cpp, `tools/imatrix/imatrix.cpp` (`save_imatrix`) and `tools/quantize/quantize.cpp` (`load_imatrix`).
    """

    def __init__(
        self, sums: Mapping[str, FloatArray] | None = None, counts: Mapping[str, FloatArray] | None = None
    ) -> None:
        self._sums: dict[str, FloatArray] = dict(sums or {})
        self._counts: dict[str, FloatArray] = dict(counts or {})

    def __len__(self) -> int:
        return len(self._sums)

    def add(self, name: str, *moments: Moments) -> None:
        """Take the diagonal of H and the sum of the weights for the tensor `name`: of its matrix, or of each expert's.

        Raises:
            StepError: no token reached the tensor.
        """
        if all(each.weight_sum <= 0 for each in moments):
            raise StepError(f"no calibration token reached {name}: it has no importance")
        self._sums[name] = np.stack([each.upper.diagonal().numpy() for each in moments]).astype(np.float32)
        self._counts[name] = np.array([each.weight_sum for each in moments], np.float32)

    def importance(self, name: str, matrix: int = 0) -> FloatArray:
        """The mean square of each input channel, [width], rounded as llama-quantize rounds it.

        An expert that no token reached has ones, as in llama-quantize.

        Args:
            name: of the tensor.
            matrix: of its matrices which, 0 where it has one.

        Raises:
            StepError: the calibration pass did not reach the tensor.
        """
        if name not in self._sums:
            raise StepError(f"the calibration pass did not reach {name}: it has no importance")
        sums, count = self._sums[name][matrix], self._counts[name][matrix]
        return sums / count if count > 0 else np.ones_like(sums)

    def snapshot(self) -> dict[str, FloatArray]:
        """For each tensor its sums, and last the sums of the weights, [matrices, width + 1]."""
        return {name: np.column_stack([sums, self._counts[name]]) for name, sums in self._sums.items()}

    def restore(self, arrays: Mapping[str, FloatArray]) -> None:
        """Take what `snapshot` gave."""
        self._sums = {name: array[:, :-1] for name, array in arrays.items()}
        self._counts = {name: array[:, -1] for name, array in arrays.items()}

    def save(self, path: Path, dataset: str) -> None:
        """Write the matrix as a GGUF of type `imatrix`; `dataset` says which calibration it is from."""
        gguf = gguf_library()
        writer = gguf.GGUFWriter(path, arch="")  # an imatrix has no architecture
        writer.add_type("imatrix")
        writer.add_array(gguf.Keys.IMatrix.DATASETS, [dataset])
        writer.add_uint32(gguf.Keys.IMatrix.CHUNK_COUNT, 1)
        most = max((float(counts.max()) for counts in self._counts.values()), default=1.0)
        writer.add_uint32(gguf.Keys.IMatrix.CHUNK_SIZE, round(most))
        for name in sorted(self._sums):
            writer.add_tensor(f"{name}.in_sum2", np.ascontiguousarray(self._sums[name]))
            writer.add_tensor(f"{name}.counts", self._counts[name].reshape(-1, 1))
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()
