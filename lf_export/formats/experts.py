"""What formats say of experts: how many tokens each was sent, and which were sent too few to be calibrated alone."""

from collections.abc import Mapping
from typing import Any

from lf_export.checkpoint.index import Checkpoint
from lf_export.errors import InputError
from lf_export.progress import say
from lf_export.quant.judge import FEEDBACK_TOKENS_PER_WIDTH, too_few_tokens
from lf_export.walk.families import Experts, family_of
from lf_export.walk.view import LayerView


class Starved:
    """The experts' linears that saw too few tokens, and what was done about it.

    Args:
        checkpoint: the model.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._family = family_of(checkpoint.config)
        self._layer: dict[str, str] = {}
        self._found: dict[str, str] = {}
        self._fewest: int | None = None

    def look(self, view: LayerView) -> None:
        """Find the starved linears of a layer, before it is quantized."""
        self._layer = {}
        experts = self._family.experts_at(view.index)
        if experts is None or not view.moments:
            return
        for name in (name for group in experts.groups for name in group):
            moments = view.moments[name]
            self._fewest = moments.count if self._fewest is None else min(moments.count, self._fewest)
            if (why := too_few_tokens(moments, FEEDBACK_TOKENS_PER_WIDTH)) is not None:
                self._layer[f"{view.prefix}.{name}"] = why

    def __contains__(self, module: object) -> bool:
        """Whether a linear of the layer, by full name, is starved: `tell` will say so."""
        return module in self._layer

    def tell(self, view: LayerView, remedies: Mapping[str, str]) -> None:
        """Remember the starved linears of a layer, and say which these are in one line: there may be hundreds.

        Args:
            view: the layer.
            remedies: for each linear, by full name, what was done where its own tokens did not suffice.
        """
        experts = self._family.experts_at(view.index)
        if experts is None or not self._layer:
            return
        starved: dict[str, list[tuple[str, str]]] = {}
        for module, why in self._layer.items():
            number, _, linear = module.removeprefix(f"{view.prefix}.{experts.block}.experts.").partition(".")
            starved.setdefault(number, []).append((linear, remedies[module]))
            self._found[module] = f"{why}: {remedies[module]}"
        say(f"{view.prefix}.{experts.block}: {_sentence(starved, experts)}")

    def facts(self) -> dict[str, Any]:
        """For the manifest; empty for a model without experts."""
        experts = self._family.experts
        if experts is None:
            return {}
        facts = {"count": experts.count, "per_token": experts.chosen, "fewest_tokens": self._fewest}
        return {"experts": facts | {"too_few_tokens": self._found}}

    def snapshot(self) -> dict[str, Any]:
        """What `restore` needs, as JSON values."""
        return {"found": self._found, "fewest": self._fewest}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go on after a snapshot."""
        self._found, self._fewest = dict(snapshot["found"]), snapshot["fewest"]


def refuse_experts(checkpoint: Checkpoint, what: str, why: str) -> None:
    """Refuse a mixture of experts where something is not made for one.

    Raises:
        InputError: the model has experts.
    """
    if family_of(checkpoint.config).experts is not None:
        raise InputError(f"{what} is not offered for {checkpoint.config['model_type']}, a mixture of experts: {why}")


def _sentence(starved: Mapping[str, list[tuple[str, str]]], experts: Experts) -> str:
    """Experts to which the same was done stand together."""
    alike: dict[str, list[str]] = {}
    for number, linears in starved.items():
        by_remedy: dict[str, list[str]] = {}
        for linear, remedy in linears:
            by_remedy.setdefault(remedy, []).append(linear)
        done = "; ".join(f"{', '.join(names)} {remedy}" for remedy, names in by_remedy.items())
        alike.setdefault(done, []).append(number)
    parts = [f"{', '.join(numbers)} ({done})" for done, numbers in alike.items()]
    return f"too few calibration tokens were sent to {len(starved)} of {experts.count} experts: {', '.join(parts)}"
