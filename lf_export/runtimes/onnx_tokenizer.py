"""The tokenizer of a folder in ONNX Runtime GenAI's layout."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lf_export.errors import InputError


class FolderTokenizer:
    """The folder's tokenizer: tokenizer.json by the `tokenizers` library alone, anything else by Transformers.

    Raises:
        InputError: there is none, or it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.eos_ids: frozenset[int] = frozenset()
        self._tokenizer: Any
        self._fast = (folder / "tokenizer.json").is_file()
        if self._fast:
            from tokenizers import Tokenizer  # noqa: PLC0415 - heavy

            try:
                self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            except Exception as error:  # the library raises plain Exception
                raise InputError(f"{folder}: no tokenizer can be loaded: {error}") from error
            return
        # Transformers and torch would count in the artifact's memory: only where there is no other way.
        from lf_export.runtimes.causal import load_tokenizer  # noqa: PLC0415

        self._tokenizer = load_tokenizer(folder)
        if isinstance(self._tokenizer.eos_token_id, int):
            self.eos_ids = frozenset({self._tokenizer.eos_token_id})

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; special tokens are recognised, none is added."""
        if self._fast:
            return list(self._tokenizer.encode(text, add_special_tokens=False).ids)
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens kept."""
        if self._fast:
            return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
