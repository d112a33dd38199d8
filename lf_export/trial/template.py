"""The tokenizer that renders prompts for an artifact: the folder's own, or a GGUF's template and tokens."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lf_export.errors import InputError, MissingError


def rendering_tokenizer(path: Path) -> Any:
    """What a dialect needs to render for the artifact at `path`, a folder or a GGUF file.

    Raises:
        InputError: the artifact holds no tokenizer.
        MissingError: it is a GGUF and the package gguf is not installed.
    """
    folder = path if path.is_dir() else path.parent
    if not path.is_file() and (folder / "tokenizer_config.json").is_file():
        from lf_export.runtimes.causal import load_tokenizer  # noqa: PLC0415 - torch, which not every artifact needs

        return load_tokenizer(folder)
    files = [path] if path.is_file() else sorted(each for each in folder.glob("*.gguf") if each.name != "imatrix.gguf")
    if not files:
        raise InputError(f"{path}: no tokenizer there, expected tokenizer.json or a GGUF file")
    return GgufTemplate(files[0])


class GgufTemplate:
    """The chat template and the vocabulary of a GGUF, as far as a dialect asks for them.

    Args:
        path: the file, the first of its parts.

    Raises:
        InputError: it is no GGUF, or holds no tokens.
        MissingError: the package gguf is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            from gguf import GGUFReader  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise MissingError("the package gguf is not installed", "pip install 'lf-export[gguf]'") from error
        try:
            fields = GGUFReader(path).fields
            tokens = fields["tokenizer.ggml.tokens"].contents()
            template = fields.get("tokenizer.chat_template")
            self.chat_template = template.contents() if template is not None else None
            ids = {name: fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos")}
            self._special = {f"{name}_token": tokens[int(field.contents())] for name, field in ids.items() if field}
        except (OSError, ValueError, KeyError, IndexError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: no tokenizer can be read from it: {error!r}") from error
        self._vocabulary = {token: number for number, token in enumerate(tokens)}
        self.name_or_path = path.name

    def get_vocab(self) -> Mapping[str, int]:
        """Token → id."""
        return self._vocabulary

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:  # noqa: ARG002
        """The id of one whole token; llama.cpp encodes what is asked."""
        return [self._vocabulary[text]] if text in self._vocabulary else []

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Any, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        """The conversation as the template writes it, in Transformers' sandbox."""
        from transformers.utils.chat_template_utils import render_jinja_template  # noqa: PLC0415 - heavy

        if tokenize:
            raise NotImplementedError
        rendered = render_jinja_template(
            conversations=[list(messages)],
            tools=tools,
            chat_template=self.chat_template,
            add_generation_prompt=add_generation_prompt,
            **self._special,
        )
        # Transformers gives (texts, …) in some versions, one text in others.
        while not isinstance(rendered, str):
            rendered = rendered[0]
        return rendered
