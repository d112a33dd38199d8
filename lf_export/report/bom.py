"""The bill of materials of an artifact, in CycloneDX's JSON, for tools that ask what a model was made of.

Everything in it is from the artifact's manifest and, where there was a bench, from its report: the same twice gives the
same bytes. It has no time of its own, and its serial number is derived from the rest, so that a changed byte shows.

Source: https://cyclonedx.org/docs/1.6/json/. The model card of a component has no class in the CycloneDX library (11):
it is added to the library's JSON, and the whole is held against the library's own schema in the tests.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from lf_export.errors import MissingError
from lf_export.provenance import canonical_json, digest_of
from lf_export.report.model import ArtifactReport, Report

BOM_NAME = "bom.cdx.json"

_MODEL = "model"
_CALIBRATION = "calibration"
_LIBRARIES = ("python", "torch", "transformers", "safetensors", "tokenizers", "peft", "numpy")
# What of the versions shaped an artifact of a kind beside these.
_OF_KIND = {"gguf": ("gguf", "xllamacpp"), "onnx": ("onnxruntime", "onnxruntime-genai")}


def bom_text(
    name: str, manifest: Mapping[str, Any], results: ArtifactReport | None = None, report: Report | None = None
) -> str:
    """The bill of materials as it is written.

    Args:
        name: the artifact's.
        manifest: of the artifact, as it lies there.
        results: the artifact's part of `report`.
        report: of the bench that judged it.

    Raises:
        MissingError: the CycloneDX library is not installed.
    """
    facts = _library_json(name, manifest)
    facts["metadata"].pop("timestamp", None)
    component = facts["metadata"]["component"]
    component["modelCard"] = _model_card(manifest, results, report)
    facts.pop("serialNumber", None)
    return _text({**facts, "serialNumber": _serial(facts)})


def is_sealed(text: str) -> bool:
    """Whether a bill of materials is as it was written: its serial number is that of its content."""
    try:
        facts = json.loads(text)
        serial = facts.pop("serialNumber")
        return bool(serial == _serial(facts) and text == _text({**facts, "serialNumber": serial}))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _serial(facts: Mapping[str, Any]) -> str:
    return f"urn:uuid:{uuid5(NAMESPACE_URL, f'lf-export:{digest_of(facts)}')}"


def _text(facts: Mapping[str, Any]) -> str:
    return json.dumps(json.loads(canonical_json(facts)), indent=1, ensure_ascii=False) + "\n"


def _library_json(name: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    try:
        from cyclonedx.model import HashAlgorithm, HashType, Property  # noqa: PLC0415 - an extra
        from cyclonedx.model.bom import Bom, BomMetaData  # noqa: PLC0415
        from cyclonedx.model.component import Component, ComponentType, Pedigree  # noqa: PLC0415
        from cyclonedx.model.license import DisjunctiveLicense  # noqa: PLC0415
        from cyclonedx.model.tool import ToolRepository  # noqa: PLC0415
        from cyclonedx.output.json import JsonV1Dot6  # noqa: PLC0415
        from cyclonedx.spdx import fixup_id  # noqa: PLC0415
    except ImportError as error:
        raise MissingError(
            "the package cyclonedx-python-lib is not installed", "pip install 'lf-export[sign]'"
        ) from error

    def sha256(value: str) -> HashType:
        return HashType(alg=HashAlgorithm.SHA_256, content=value)

    def files(owner: str, recorded: Any) -> Iterator[Component]:
        for file, facts in sorted(recorded.items()) if isinstance(recorded, Mapping) else ():
            yield Component(
                type=ComponentType.FILE,
                name=file,
                bom_ref=f"{owner}/{file}",
                hashes=[sha256(facts["sha256"])],
                properties=[Property(name="lf-export:bytes", value=str(facts["bytes"]))],
            )

    def ancestor(role: str, facts: Mapping[str, Any]) -> Component:
        return Component(
            type=ComponentType.MACHINE_LEARNING_MODEL,
            name=str(facts.get("name") or role),
            bom_ref=role,
            components=list(files(role, facts.get("files"))),
            properties=[
                Property(name="lf-export:role", value=role.partition(" ")[0]),
                Property(name="lf-export:digest", value=str(facts.get("digest", ""))),
                *([Property(name="lf-export:hub", value=facts["hub"])] if facts.get("hub") else []),
            ],
        )

    versions = manifest["versions"]
    kind = str(manifest["kind"])
    artifact = manifest.get("artifact") or {}
    licence = (manifest.get("card") or {}).get("license")
    spdx = fixup_id(licence) if isinstance(licence, str) else None
    licences = [DisjunctiveLicense(id=spdx) if spdx else DisjunctiveLicense(name=str(licence))] if licence else []
    model = Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=name,
        version=str(manifest.get("digest", ""))[:16],
        bom_ref=_MODEL,
        licenses=licences,
        components=list(files(_MODEL, manifest.get("files"))),
        pedigree=Pedigree(ancestors=[ancestor(role, facts) for role, facts in _ancestors(manifest)]),
        properties=[
            Property(name="lf-export:format", value=kind),
            Property(name="lf-export:manifest-digest", value=str(manifest.get("digest", ""))),
            *([Property(name="lf-export:scheme", value=str(artifact["scheme"]))] if "scheme" in artifact else []),
        ],
    )
    tools = [name for name in ("lf-export", *_LIBRARIES, *_OF_KIND.get(kind, ())) if name in versions]
    metadata = BomMetaData(
        component=model,
        tools=ToolRepository(
            components=[
                Component(
                    type=ComponentType.APPLICATION if each == "lf-export" else ComponentType.LIBRARY,
                    name=each,
                    version=str(versions[each]),
                    bom_ref=f"tool/{each}",
                )
                for each in tools
            ]
        ),
    )
    data = []
    if calibration := manifest.get("calibration"):
        read = (manifest.get("inputs") or {}).get("calibration") or {}
        data.append(
            Component(
                type=ComponentType.DATA,
                name="calibration data",
                version=str(calibration.get("digest", ""))[:16],
                bom_ref=_CALIBRATION,
                components=list(files(_CALIBRATION, read.get("files"))),
                properties=[Property(name="lf-export:digest", value=str(calibration.get("digest", "")))],
            )
        )
    bom = Bom(components=data, metadata=metadata)
    bom.register_dependency(model, data)
    return dict(json.loads(JsonV1Dot6(bom).output_as_string()))


def _ancestors(manifest: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The base and the adapters, where what was quantized was merged by us; else the model that was quantized."""
    inputs = manifest.get("inputs") or {}
    source = (manifest.get("source") or {}).get("inputs") or (inputs if manifest["kind"] == "merged" else {})
    hub = (manifest.get("card") or {}).get("base_model")
    if source.get("base"):
        yield "base", {**source["base"], "hub": hub}
    for number, adapter in enumerate(source.get("adapters") or (), 1):
        yield f"adapter {number}", adapter
    if inputs.get("model"):
        yield ("merged" if source else "base"), inputs["model"]


def _model_card(manifest: Mapping[str, Any], results: ArtifactReport | None, report: Report | None) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "task": "text-generation",
        "architectureFamily": "transformer decoder",
        "inputs": [{"format": "text"}],
        "outputs": [{"format": "text"}],
    }
    if manifest.get("calibration"):
        parameters["datasets"] = [{"ref": _CALIBRATION}]
    card: dict[str, Any] = {"modelParameters": parameters}
    if results is not None and report is not None:
        card["quantitativeAnalysis"] = {"performanceMetrics": list(_metrics(results, report))}
    return card


def _metrics(artifact: ArtifactReport, report: Report) -> Iterator[dict[str, str]]:
    def metric(kind: str, value: float, part: str) -> dict[str, str]:
        return {"type": kind, "value": f"{value:.6g}", "slice": part}

    def suite(which: str) -> str:
        facts = getattr(report.suites, which)
        return which if facts is None else f"{facts.path.rpartition('/')[2]} sha256:{facts.sha256}"

    if artifact.gate is not None:
        yield {"type": "lf-export gate", "value": str(artifact.gate.verdict), "slice": f"margin {report.gate.margin:g}"}
    if artifact.calls and artifact.calls.n:
        yield metric("exact calls", artifact.calls.strict_exact / artifact.calls.n, suite("calls"))
    if artifact.no_call and artifact.no_call.n:
        yield metric("abstention", artifact.no_call.abstained / artifact.no_call.n, suite("no_call"))
    kl = artifact.fidelity.get("call")
    if kl is not None and kl.kl_mean is not None:
        yield metric("mean KL on call tokens", kl.kl_mean, suite("calls"))
    if artifact.chat_perplexity is not None:
        yield metric("perplexity", artifact.chat_perplexity, suite("chat"))
