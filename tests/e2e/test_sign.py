"""A signature holds for what was signed, for nothing else, and for nobody else's key."""

import base64
import datetime as dt
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from lf_export.steps.quantize import quantize_model, targets_from_names

Run = Callable[..., Any]
PASSWORD = "correct horse"  # noqa: S105 - of a key that lives for one test


@pytest.fixture(scope="module")
def artifact(merged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small artifact; tests copy it."""
    out = tmp_path_factory.mktemp("artifact") / "q8"
    quantize_model(merged, targets_from_names(["gguf:Q8_0"], out, gguf={"method": "rtn"}))
    return out


@pytest.fixture
def folder(artifact: Path, tmp_path: Path) -> Path:
    """A copy of the artifact that a test may change."""
    return shutil.copytree(artifact, tmp_path / "q8")


def _key_pair(folder: Path, name: str, password: str | None = None) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    hidden = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def _flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def test_a_signature_holds_until_anything_changes(lf_export: Run, folder: Path, tmp_path: Path) -> None:
    private, public = _key_pair(tmp_path, "release")
    ended = lf_export("sign", folder, "--private-key", private, "--json")
    assert ended.status == 0, ended.err
    assert json.loads(ended.out) == {"signatures": [str(folder / "model.sig")]}
    assert (folder / "bom.cdx.json").is_file()
    check = ("verify", folder, "--public-key", public, "--json")
    ended = lf_export(*check)
    assert ended.status == 0, ended.err
    assert json.loads(ended.out)["results"][0]["signature"] == "valid"
    unchecked = json.loads(lf_export("verify", folder, "--json").out)["results"][0]
    assert unchecked["signature"] == "not checked"
    assert "no key was given" in unchecked["notes"][0]
    for file in sorted(folder.iterdir()):
        if file.name != "model.sig":
            _flip(file, file.stat().st_size // 2)
            ended = lf_export(*check)
            assert ended.status == 3
            assert f"{folder / 'model.sig'}: signature: does not hold" in ended.err
            assert file.name in ended.err
            _flip(file, file.stat().st_size // 2)
    (folder / "extra.txt").write_text("x", encoding="utf-8")
    assert "extra.txt" in lf_export(*check).err
    (folder / "extra.txt").unlink()
    assert lf_export(*check).status == 0
    assert str(tmp_path) not in (folder / "model.sig").read_text(encoding="utf-8")


def test_another_key_a_damaged_and_a_missing_signature_do_not_hold(
    lf_export: Run, folder: Path, tmp_path: Path
) -> None:
    private, public = _key_pair(tmp_path, "release")
    _, other = _key_pair(tmp_path, "other")
    assert "not there, and a key to check it with was given" in lf_export("verify", folder, "--public-key", public).err
    lf_export("sign", folder, "--private-key", private)
    assert "does not hold: Key mismatch" in lf_export("verify", folder, "--public-key", other).err
    bundle = json.loads((folder / "model.sig").read_text(encoding="utf-8"))
    signed = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    forged = signed.replace(b'"allow_symlinks": false', b'"allow_symlinks": true ')
    assert forged != signed
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(forged).decode()
    for text in (json.dumps(bundle), "{", "", "[" * 10_000, "\udcff"):
        (folder / "model.sig").write_text(text, encoding="utf-8", errors="surrogateescape")
        ended = lf_export("verify", folder, "--public-key", public)
        assert ended.status == 3
        assert "model.sig: signature: does not hold" in ended.err


def test_a_signature_that_leaves_files_out_does_not_hold(lf_export: Run, folder: Path, tmp_path: Path) -> None:
    import model_signing

    private, public = _key_pair(tmp_path, "release")
    weights = next(folder.glob("*.gguf"))
    left_out = model_signing.hashing.Config().set_ignored_paths(paths=[weights.name, "model.sig"])
    config = model_signing.signing.Config().use_elliptic_key_signer(private_key=private).set_hashing_config(left_out)
    config.sign(folder, folder / "model.sig")
    ended = lf_export("verify", folder, "--public-key", public)
    assert ended.status == 3
    assert f"signature: leaves out {weights.name}" in ended.err


def test_a_password_is_taken_from_the_environment_alone(
    lf_export: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = _key_pair(tmp_path, "release", PASSWORD)
    command = ("sign", folder, "--private-key", private)
    ended = lf_export(*command)
    assert ended.status == 3
    assert "--password-env" in ended.err
    assert lf_export(*command, "--password-env", "RELEASE_PASSWORD").status == 4
    monkeypatch.setenv("RELEASE_PASSWORD", "wrong")
    ended = lf_export(*command, "--password-env", "RELEASE_PASSWORD")
    assert ended.status == 3
    assert not (folder / "model.sig").exists()
    monkeypatch.setenv("RELEASE_PASSWORD", PASSWORD)
    assert lf_export(*command, "--password-env", "RELEASE_PASSWORD").status == 0
    assert lf_export("verify", folder, "--public-key", public).status == 0
    assert not any(PASSWORD.encode() in file.read_bytes() for file in folder.iterdir())


def _certificates(folder: Path) -> tuple[Path, Path, Path]:
    """A root, a signing certificate under it, and its key."""
    now = dt.datetime.now(dt.UTC)
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a root")])

    def built(name: x509.Name, public: Any, *, authority: bool) -> x509.Certificate:
        usage = {
            "digital_signature": not authority, "content_commitment": False, "key_encipherment": False,
            "data_encipherment": False, "key_agreement": False, "key_cert_sign": authority, "crl_sign": authority,
            "encipher_only": False, "decipher_only": False,
        }  # fmt: skip
        builder = x509.CertificateBuilder(root_name, name, public, x509.random_serial_number())
        builder = builder.not_valid_before(now).not_valid_after(now + dt.timedelta(days=30))
        builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        return builder.add_extension(x509.KeyUsage(**usage), critical=True).sign(root_key, hashes.SHA256())

    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a release")])
    files = folder / "root.pem", folder / "release.pem", folder / "release.key"
    files[0].write_bytes(built(root_name, root_key.public_key(), authority=True).public_bytes(Encoding.PEM))
    files[1].write_bytes(built(own, key.public_key(), authority=False).public_bytes(Encoding.PEM))
    files[2].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


def test_a_certificate_is_checked_by_its_root(lf_export: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    root, certificate, key = _certificates(tmp_path)
    stranger, *_ = _certificates(tmp_path / "other")
    ended = lf_export("sign", folder, "--private-key", key, "--certificate", certificate, "--chain", root)
    assert ended.status == 0, ended.err
    assert lf_export("verify", folder, "--certificate-chain", root).status == 0
    ended = lf_export("verify", folder, "--certificate-chain", stranger)
    assert ended.status == 3
    assert "signature: does not hold" in ended.err


def test_an_edited_card_is_a_problem_until_it_is_signed(lf_export: Run, folder: Path, tmp_path: Path) -> None:
    private, public = _key_pair(tmp_path, "release")
    card = folder / "README.md"
    card.write_text(card.read_text(encoding="utf-8").replace("## Licence", "## The licence"), encoding="utf-8")
    assert "README.md: changed: edited since lf-export wrote it" in lf_export("verify", folder).err
    assert lf_export("sign", folder, "--private-key", private).status == 0
    ended = lf_export("verify", folder, "--public-key", public)
    assert ended.status == 0, ended.err
    assert "README.md: edited, and signed so" in ended.out
    assert lf_export("verify", folder).status == 3  # nobody looked at the signature


def test_what_does_not_verify_is_not_signed(lf_export: Run, folder: Path, tmp_path: Path) -> None:
    private, public = _key_pair(tmp_path, "release")
    _flip(folder / "LICENSE", 1)
    ended = lf_export("sign", folder, "--private-key", private)
    assert ended.status == 3
    assert "LICENSE: changed" in ended.err
    assert "nothing was signed" in ended.err
    assert not (folder / "model.sig").exists()
    assert lf_export("sign", folder, "--private-key", public).status == 3  # a public key
    assert lf_export("sign", folder, "--private-key", tmp_path / "none").status == 3
    assert lf_export("sign", folder).status == 2
    assert lf_export("sign", folder, "--private-key", private, "--sigstore").status == 2
    assert lf_export("verify", folder, "--public-key", folder / "LICENSE").status in {0, 3}


def test_without_the_packages_the_command_that_installs_them_is_said(
    lf_export: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = _key_pair(tmp_path, "release")
    for name in ("model_signing.signing", "model_signing.verifying", "cyclonedx.model"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    for command in (("sign", folder, "--private-key", private), ("bom", folder)):
        ended = lf_export(*command)
        assert ended.status == 4
        assert "hint: pip install 'lf-export[sign]'" in ended.err
    assert lf_export("verify", folder).status == 0
    (folder / "model.sig").write_text("{}", encoding="utf-8")
    assert lf_export("verify", folder, "--public-key", public).status == 4


def test_a_run_signs_what_passed_and_nothing_else(
    lf_export: Run, recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = _key_pair(tmp_path, "release")
    targets = {"q8": {"format": "gguf", "type": "Q8_0", "method": "rtn"}}
    out = tmp_path / "run" / "q8"
    ended = lf_export("run", recipe(quantize=targets, bench=None, sign={"private_key": str(private)}))
    assert ended.status == 0, ended.err
    assert "q8: not signed: not judged" in ended.err
    assert not (out / "model.sig").exists()
    monkeypatch.setenv("LF_EXPORT_SIGNING_KEY", str(private))
    path = recipe(quantize=targets, bench=None, sign={"unjudged": True})
    ended = lf_export("run", path)
    assert ended.status == 0, ended.err
    assert lf_export("verify", tmp_path / "run", "--public-key", public).status == 0
    ended = lf_export("run", path)
    assert "q8: done before, kept" in ended.err  # the signature and the bill of materials change nothing
    monkeypatch.delenv("LF_EXPORT_SIGNING_KEY")
    ended = lf_export("run", path)
    assert ended.status == 3
    assert "LF_EXPORT_SIGNING_KEY" in ended.err
    assert lf_export("run", path, "--dry-run").status == 0
