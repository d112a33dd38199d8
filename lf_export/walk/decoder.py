"""One decoder layer at a time: transformers' own layer class, built on meta, its weights from the checkpoint."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoModel
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

from lf_export.checkpoint.index import Checkpoint
from lf_export.checkpoint.reader import TORCH_DTYPES, check_finite
from lf_export.errors import InputError
from lf_export.walk.experts import separate
from lf_export.walk.families import Family
from lf_export.walk.windows import attention_window, config_of

# Rows of the embedding that are read at once.
_EMBEDDING_ROWS = 4096


class Decoder:
    """The decoder of a checkpoint, of which at most one layer is in memory.

    Positions, masks and layers are those of transformers; only the loop over the layers is ours.
    """

    def __init__(self, checkpoint: Checkpoint, family: Family, device: torch.device) -> None:
        self.checkpoint = checkpoint
        self.family = family
        self.device = device
        self._config = config_of(checkpoint)
        skeleton = _skeleton(self._config)
        self._layer_class = type(skeleton.layers[0])
        self._rotary = type(skeleton.rotary_emb)(self._config).to(device)
        self._embed_scale = float(getattr(skeleton.embed_tokens, "scalar_embed_scale", 1.0))  # Gemma has one
        self._positions: dict[tuple[int, str | None], tuple[torch.Tensor, Any]] = {}

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """The embeddings of token ids [t], fp32 [t, hidden]; the table is read in blocks of rows."""
        info = self.checkpoint.info(self.family.embedding)
        hidden = torch.empty(len(ids), info.shape[1])
        for start in range(0, info.shape[0], _EMBEDDING_ROWS):
            stop = min(start + _EMBEDDING_ROWS, info.shape[0])
            wanted = torch.nonzero((ids >= start) & (ids < stop)).squeeze(1)
            if len(wanted):
                block = self.checkpoint.read(info.name, rows=slice(start, stop))
                hidden[wanted] = block[ids[wanted] - start].float()
        check_finite(hidden, info.name, info.file)
        # the scale is rounded as the model rounds it, which multiplies in its weights' dtype
        return hidden.mul_(torch.tensor(self._embed_scale).to(TORCH_DTYPES[info.dtype]).float()).to(self.device)

    def build(self, index: int, weights: Mapping[str, torch.Tensor], dtype: torch.dtype) -> torch.nn.Module:
        """Layer `index` as transformers' own module around `weights` (shared with it in fp32).

        Of a mixture of experts every expert is a module of its own; modules have the names of the checkpoint.

        Raises:
            InputError: the weights are not those that this architecture's config asks for.
        """
        with torch.device("meta"):
            module: torch.nn.Module = self._layer_class(self._config, index)
        if (experts := self.family.experts_at(index)) is not None:
            separate(module, experts)
        expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        held = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        if expected != held:
            raise self._mismatch(index, expected, held)
        module.load_state_dict({name: tensor.to(dtype) for name, tensor in weights.items()}, assign=True)
        return module.eval().requires_grad_(requires_grad=False)

    def run(self, module: torch.nn.Module, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """Pass hidden states [samples, longest, hidden] through a layer."""
        positions, embeddings = self._at_positions(index, hidden)
        output: torch.Tensor | tuple[torch.Tensor, ...] = module(
            hidden,
            attention_mask=self._mask(index, hidden, positions),
            position_ids=positions,
            position_embeddings=embeddings,
            past_key_values=None,
            use_cache=False,
        )
        return output[0] if isinstance(output, tuple) else output

    def _at_positions(self, index: int, hidden: torch.Tensor) -> tuple[torch.Tensor, Any]:
        length = hidden.shape[1]
        # an embedding that holds several kinds, as Gemma's does, asks for the layer's
        kind = self._config.layer_types[index] if hasattr(self._rotary, "layer_types") else None
        if (length, kind) not in self._positions:
            positions = torch.arange(length, device=self.device).unsqueeze(0)
            of_kind = () if kind is None else (kind,)
            self._positions[length, kind] = (positions, self._rotary(hidden, positions, *of_kind))
        return self._positions[length, kind]

    def _mask(self, index: int, hidden: torch.Tensor, positions: torch.Tensor) -> Any:
        window = attention_window(self._config, index)
        create = create_causal_mask if window is None else create_sliding_window_causal_mask
        return create(
            config=self._config, inputs_embeds=hidden, attention_mask=None, past_key_values=None, position_ids=positions
        )

    def _mismatch(self, index: int, expected: dict[str, Any], held: dict[str, Any]) -> InputError:
        prefix = self.family.prefix(index)
        problems = [f"{prefix}.{name}: not in the checkpoint" for name in expected if name not in held]
        problems += [f"{prefix}.{name}: unknown to {self.family.model_type}" for name in held if name not in expected]
        problems += [
            f"{prefix}.{name}: shape {list(held[name])}, config.json makes it {list(shape)}"
            for name, shape in expected.items()
            if name in held and held[name] != shape
        ]
        return InputError.of([f"{self.checkpoint.root}: {problem}" for problem in problems])


def _skeleton(config: Any) -> Any:
    """The model with one layer and no memory: it says which layer and rotary classes the architecture has."""
    small = copy.deepcopy(config)
    small.num_hidden_layers = 1
    if getattr(small, "layer_types", None):
        small.layer_types = small.layer_types[:1]
    with torch.device("meta"):
        return AutoModel.from_config(small)
