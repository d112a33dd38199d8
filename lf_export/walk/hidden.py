"""The hidden states of all calibration tokens between two layers: in memory where they fit, on disk to go on from."""

import os
from pathlib import Path

import torch

from lf_export.checkpoint.reader import bytes_of
from lf_export.errors import StepError

_NAMES = ("hidden-0.bin", "hidden-1.bin")


class HiddenStates:
    """Hidden states [tokens, width] fp32, read and written by batch while one layer runs.

    With a folder there are two files: a layer reads one and writes the other, so that a run that is killed inside a
    layer still has that layer's input. Nothing is mapped: a mapped file would count as the process's memory. What fits
    `memory` is held there too, and then the files are only written.

    Without a folder everything is in memory.

    Args:
        shape: (tokens, width).
        folder: an existing folder for the files, or None.
        memory: bytes that may be held, None for any number; without a folder it does not count.
        side: which of the two files holds the current states.
        device: where batches are wanted.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        folder: Path | None = None,
        memory: int | None = None,
        *,
        side: int = 0,
        device: torch.device | None = None,
    ) -> None:
        self.side = side
        self._shape, self._device = shape, device or torch.device("cpu")
        self._files = None if folder is None else tuple(folder / name for name in _NAMES)
        self._held: torch.Tensor | None = None
        if folder is None or memory is None or self.nbytes <= memory:
            self._held = torch.empty(shape, device=self._device)

    @property
    def nbytes(self) -> int:
        """Bytes of all states."""
        return 4 * self._shape[0] * self._shape[1]

    @property
    def spilled(self) -> bool:
        """Whether the states are on disk alone."""
        return self._held is None

    def load(self) -> None:
        """Take the current file's states, which an earlier run wrote, into memory where they are held.

        Raises:
            StepError: the file ends too early.
        """
        if self._held is not None:
            everything = slice(0, self._shape[0])
            self._held.copy_(self._read_file(everything))

    def read(self, tokens: slice) -> torch.Tensor:
        """The states of some tokens, as the layer before left them. Not to be changed."""
        if self._held is not None:
            return self._held[tokens]
        return self._read_file(tokens).to(self._device)

    def write(self, tokens: slice, states: torch.Tensor) -> None:
        """Take what a layer makes of some tokens; in memory it replaces what was there.

        Raises:
            OSError: the system cannot write.
        """
        if self._held is not None:
            self._held[tokens] = states
        if self._files is None:
            return
        data = bytes_of(states.detach().float().contiguous().cpu())
        start, done = self._start(tokens), 0
        handle = os.open(self._files[1 - self.side], os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            while done < len(data):  # the kernel writes at most 2 GB at once
                done += os.pwrite(handle, data[done:], start + done)
        finally:
            os.close(handle)

    def turn(self) -> None:
        """End a layer: what was written is what is read from now on."""
        self.side = 1 - self.side

    def _start(self, tokens: slice) -> int:
        return 4 * self._shape[1] * int(tokens.start)

    def _read_file(self, tokens: slice) -> torch.Tensor:
        assert self._files is not None  # noqa: S101 - without files everything is held
        file = self._files[self.side]
        states = torch.empty(int(tokens.stop) - int(tokens.start), self._shape[1])
        data, start, done = bytes_of(states), self._start(tokens), 0
        handle = os.open(file, os.O_RDONLY)
        try:
            while done < len(data):
                count = os.preadv(handle, [data[done:]], start + done)
                if count == 0:
                    raise StepError(f"{file}: truncated while the run was reading it")
                done += count
        finally:
            os.close(handle)
        return states
