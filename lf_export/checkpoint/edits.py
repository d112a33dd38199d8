"""What becomes of each tensor: where its values come from, and which changes they go through, in order.

Tied weights are two names here, the embedding's and the output layer's, that begin as one and stay one while the same
things happen to both. PEFT merges into the shared tensor whatever was meant for one of the two, so its merged model
is not the model that was trained; its advice is to untie the base first. Here the two come apart by themselves:

- an adapter or whole module on the embedding changes the embedding alone, one on the output layer that layer alone;
- with `ensure_weight_tying` a change of the embedding is meant for both, once;
- trained rows of the embedding are meant for both, unless the output layer has its own;
- a copy of a weight that was saved along and differs from the base's (a resized vocabulary) stands for both.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lf_export.checkpoint.adapter import Adapter, LoraModule
from lf_export.checkpoint.changes import AddedBias, Change, Dora, Lora, TokenRows
from lf_export.checkpoint.fit import check_combines, check_fits, transposed
from lf_export.checkpoint.header import TensorInfo
from lf_export.checkpoint.index import HEAD, Checkpoint
from lf_export.checkpoint.lora_config import Combine, token_indices, trained_whole
from lf_export.checkpoint.reader import same_values
from lf_export.errors import InputError

_HEAD_WEIGHT = f"{HEAD}.weight"


@dataclass(frozen=True, slots=True)
class Edit:
    """A tensor of the result: `source` holds its values, an adapter's file if it was `replaced` as a whole.

    `dtype` is the base's own, as in a header. Changes are made in order, in the shape of the source.
    """

    name: str
    dtype: str
    source: TensorInfo
    changes: tuple[Change, ...] = ()
    replaced: bool = False

    @property
    def changed(self) -> bool:
        """Whether an adapter has a part in it."""
        return self.replaced or bool(self.changes)

    def then(self, *changes: Change) -> "Edit":
        """The same, with more changes after the others."""
        return replace(self, changes=(*self.changes, *changes))


def plan_edits(
    base: Checkpoint, adapters: Sequence[Adapter], weights: Sequence[float], combine: Combine = "in-order"
) -> dict[str, Edit]:
    """What becomes of every tensor of the base, by name, and of an output layer that is no longer tied.

    Raises:
        InputError: an adapter does not fit the base, or cannot be combined with the others.
    """
    for adapter in adapters:
        check_fits(adapter, base)
    edits = _Edits(base)
    if combine == "in-order":
        for adapter, weight in zip(adapters, weights, strict=True):
            edits.add(adapter, weight)
    else:
        check_combines(adapters, combine)
        edits.add_combined(list(zip(adapters, weights, strict=True)), combine)
    return edits.close()


class _Edits:
    """The tensors of the result, as one adapter after the other has its part in them."""

    def __init__(self, base: Checkpoint) -> None:
        self.base = base
        self.tensors = {info.name: Edit(info.name, info.dtype, info) for info in base.tensors.values()}
        self.embedding = base.embedding
        self._added = False
        if base.tied and self.embedding is not None:
            info = base.tensors[self.embedding]
            self.tensors[_HEAD_WEIGHT] = Edit(_HEAD_WEIGHT, info.dtype, info)
            self._added = True

    @property
    def tied(self) -> bool:
        """Whether the output layer still shares its weight with the embedding."""
        if not self._added or self.embedding is None:
            return False
        one, other = self.tensors[self.embedding], self.tensors[_HEAD_WEIGHT]
        return (one.source, one.changes) == (other.source, other.changes)

    def add(self, adapter: Adapter, weight: float = 1.0) -> None:
        """Put an adapter after what is there.

        Raises:
            InputError: a change does not have the shape of what is there, or trained rows lie outside.
        """
        self._replace(adapter)
        self._tokens(adapter)
        for module in adapter.modules.values():
            for name in self._meant(adapter, module):
                self._change(name, module, self._product(module, weight))
            if module.bias is not None:
                self._put(f"{module.name}.bias", AddedBias(module.bias, module.scaling * weight))

    def add_combined(self, adapters: Sequence[tuple[Adapter, float]], combine: Combine) -> None:
        """Put the combination of several plain adapters after what is there; see `changes.Lora`."""
        parts: dict[str, list[tuple[LoraModule, float]]] = {}
        for adapter, weight in adapters:
            self._replace(adapter)
            if resized := [edit.name for edit in self.tensors.values() if edit.replaced]:
                raise InputError(f"{adapter.root}: {resized[0]} is not the base's, which cannot be combined")
            for name, module in adapter.modules.items():
                parts.setdefault(name, []).append((module, weight))
        for name, found in parts.items():
            modules, weights = zip(*found, strict=True)
            turned = modules[0].embedding or transposed(self.base, name)
            for target in self._meant(adapters[0][0], modules[0]):
                self._change(target, modules[0], Lora(modules, weights, combine, turned))

    def close(self) -> dict[str, Edit]:
        """What is written: a tied output layer has no tensor of its own.

        Raises:
            InputError: embedding and output layer come to have different numbers of rows.
        """
        tensors = dict(self.tensors)
        if self.tied:
            del tensors[_HEAD_WEIGHT]
        pair = [tensors[name] for name in (self.embedding, _HEAD_WEIGHT) if name in tensors]
        if any(edit.replaced for edit in pair) and len({edit.source.shape[0] for edit in pair}) > 1:
            told = " and ".join(f"{edit.name} {edit.source.shape[0]:,} rows" for edit in pair)
            raise InputError(
                f"{self.base.root}: merged, {told}: embedding and output layer must grow together",
                "save the adapter again with save_embedding_layers=True after both were resized",
            )
        return tensors

    def _pair(self, name: str) -> tuple[str, ...]:
        """The embedding and the output layer if `name` is one of them and they are tied, else `name` alone."""
        if self.tied and self.embedding is not None and name in {self.embedding, _HEAD_WEIGHT}:
            return self.embedding, _HEAD_WEIGHT
        return (name,)

    def _replace(self, adapter: Adapter) -> None:
        """Take weights that were saved whole as new sources, where they are not the base's own."""
        plan: list[tuple[str, TensorInfo]] = []
        for name, info in adapter.whole.items():
            pair = self._pair(name)
            if len(pair) == 2:
                other = adapter.whole.get(pair[1] if name == pair[0] else pair[0])
                alone = trained_whole(adapter.config, name) and not adapter.ties
                if other is not None and same_values(info, other):
                    info = adapter.whole[pair[0]]  # noqa: PLW2901 (one source, so that the two stay one)
                elif other is not None or alone:
                    pair = (name,)
            plan += [(each, info) for each in pair]
        for name, info in plan:
            edit = self.tensors[name]
            if not same_values(info, self._original(name)):
                self.tensors[name] = replace(edit, source=info, changes=(), replaced=True)

    def _original(self, name: str) -> TensorInfo:
        return self.base.tensors[self.embedding if name not in self.base.tensors and self.embedding else name]

    def _tokens(self, adapter: Adapter) -> None:
        for module, rows in adapter.tokens.items():
            name = f"{module}.weight"
            indices = tuple(token_indices(adapter.config, module) or ())
            pair = self._pair(name)
            if len(pair) == 2:
                twin = (pair[1] if name == pair[0] else pair[0]).removesuffix(".weight")
                other = adapter.tokens.get(twin)
                if other is None:
                    pair = pair if name == pair[0] else (name,)
                elif token_indices(adapter.config, twin) != list(indices) or not same_values(rows, other):
                    pair = (name,)
                elif name != pair[0]:
                    continue  # it is the embedding's, saved twice
            for each in pair:
                outside = [index for index in indices if index >= self.tensors[each].source.shape[0]]
                if outside:
                    raise InputError(f"{adapter.root}: token {outside[0]} was trained, {each} has no such row")
                self._put(each, TokenRows(rows, indices))

    def _meant(self, adapter: Adapter, module: LoraModule) -> Iterator[str]:
        """The weights that a module changes."""
        pair = self._pair(module.weight)
        if len(pair) == 1 or not adapter.ties:
            yield module.weight
        elif module.weight == pair[0]:
            yield from pair
        # with ensure_weight_tying PEFT saves the output layer's part too: it is the embedding's, transposed

    def _product(self, module: LoraModule, weight: float) -> Change:
        turned = module.embedding or transposed(self.base, module.name)
        if module.magnitude is not None:
            return Dora(module, weight, turned)
        return Lora((module,), (weight,), "in-order", turned)

    def _change(self, name: str, module: LoraModule, change: Change) -> None:
        shape = module.shape[::-1] if transposed(self.base, module.name) and not module.embedding else module.shape
        there = self.tensors[name].source.shape
        if there != shape:
            raise InputError(f"{name} is {list(there)} by then, the adapter is for {list(shape)}")
        self._put(name, change)

    def _put(self, name: str, change: Change) -> None:
        self.tensors[name] = self.tensors[name].then(change)
