"""The card of an artifact: metadata that the Hub reads, results of the bench, and a seal that tells edits."""

from typing import Any

import yaml
from flipped_report import PLACE, flipped_report
from huggingface_hub import ModelCard

from lf_export.report.card import artifact_card, is_untouched

MADE: dict[str, Any] = {
    "kind": "gptq",
    "versions": {"lf-export": "0.1.0"},
    "options": {"bits": 4, "group_size": 64},
    "calibration": {"digest": "ab" * 32, "samples": {"call": 15, "chat": 49}, "tokens": {"call": 5397, "chat": 5183}},
    "files": {"model.safetensors": {"bytes": 1}},
    "card": {"language": ["en"], "license": "apache-2.0", "base_model": "someone/a-model"},
}


def front(card: str) -> Any:
    assert card.startswith("---\n")
    return yaml.safe_load(card.split("---\n")[1])


def test_the_metadata_is_what_the_hub_knows() -> None:
    found = ModelCard(artifact_card("release-gptq", MADE)).data
    assert (found.language, found.license, found.base_model) == (["en"], "apache-2.0", "someone/a-model")
    assert (found.library_name, found.pipeline_tag) == ("transformers", "text-generation")
    assert found.tags == ["function-calling", "lf-export", "gptq"]
    assert found["quantized_by"] == "lf-export 0.1.0"
    assert found["base_model_relation"] == "quantized"
    assert found.eval_results is None


def test_the_results_are_those_of_the_bench() -> None:
    report = flipped_report()
    artifact = report.artifacts[1]
    card = artifact_card("gptq-4bit", MADE, artifact, report)
    results = ModelCard(card).data.eval_results
    assert results is not None
    values = {(each.task_name, each.metric_name): each.metric_value for each in results}
    assert artifact.calls is not None
    assert artifact.no_call is not None
    assert values == {
        ("Function calling", "exact calls"): round(artifact.calls.strict_exact / artifact.calls.n, 4),
        ("Function calling", "right function"): 1.0,
        ("Function calling", "mean KL on call tokens against merged"): 0.0036,
        ("Abstention where no function fits", "abstention"): 1.0,
        ("Chat", "perplexity"): 12.5,
    }
    assert {each.dataset_revision for each in results} == {"cd" * 32}
    assert "**INCONCLUSIVE** against merged, where a loss under 5.0 pp is accepted." in card
    assert "| size on disk | 108 MB | 540 MB |" in card


def test_a_card_says_nothing_that_is_not_known() -> None:
    found = front(artifact_card("x", {key: value for key, value in MADE.items() if key != "card"}))
    assert set(found) == {"library_name", "pipeline_tag", "tags", "quantized_by"}


def test_a_card_does_not_say_where_it_was_made() -> None:
    report = flipped_report()
    card = artifact_card("q2_k", MADE, report.artifacts[2], report)
    assert "q2_k/model.gguf: does not load" in card
    assert PLACE not in card


def test_a_card_that_was_edited_is_told_from_one_that_was_not() -> None:
    card = artifact_card("x", MADE)
    assert is_untouched(card)
    assert not is_untouched(card.replace("apache-2.0", "mit"))
    assert not is_untouched(card + "more\n")
    assert not is_untouched("# x\n")


def test_metadata_that_looks_like_yaml_stays_text() -> None:
    report = flipped_report(artifacts=("no: [1", "---"))
    card = artifact_card("no: [1", MADE, report.artifacts[0], report)
    assert front(card)["model-index"][0]["name"] == "no: [1"
