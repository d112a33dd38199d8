"""Signatures of artifacts, through the `model-signing` package: made with a key, a certificate, or Sigstore.

A signature is a Sigstore bundle over an in-toto statement that lists the sha256 of every file of the folder
(https://github.com/sigstore/model-transparency). Keys and certificates need no network; Sigstore is used only where it
is asked for.
"""

import base64
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lf_export.errors import InputError, MissingError, StepError
from lf_export.provenance import MANIFEST_NAME

SIGNATURE_NAME = "model.sig"

_STAGED = f".{SIGNATURE_NAME}.staging"
# What may be unsigned: the signature, and what version control keeps, which `model_signing` never signs.
_UNSIGNED = frozenset({SIGNATURE_NAME, _STAGED, ".git", ".gitattributes", ".github", ".gitignore"})
_LARGEST = 64 << 20


@dataclass(frozen=True)
class Signer:
    """Who signs: a private key, with a certificate where there is one, or Sigstore.

    Attributes:
        private_key: a PEM file with an elliptic-curve key (P-256, P-384, P-521).
        password_env: the environment variable that holds the key's password; the password itself is nowhere written.
        certificate: of the key, in PEM; verified by its chain and not by the key.
        chain: certificates between it and a root.
        sigstore: sign with an identity, over the network.
        identity_token_env: the environment variable with the identity's token; else the machine's own, or a browser.
    """

    private_key: Path | None = None
    password_env: str | None = None
    certificate: Path | None = None
    chain: tuple[Path, ...] = ()
    sigstore: bool = False
    identity_token_env: str | None = None


@dataclass(frozen=True)
class Trust:
    """Whose signature is believed: that of a key, of a certificate under these roots, or of a Sigstore identity."""

    public_key: Path | None = None
    chain: tuple[Path, ...] = ()
    identity: str | None = None
    issuer: str | None = None


def sign_folder(path: Path, signer: Signer) -> Path:
    """Sign every file of an artifact folder; returns the signature's file, `model.sig` in it.

    Law: `check_signature(path, trust of the signer) == []` afterwards, until a file changes.

    Raises:
        InputError: no artifact of ours, a link in it, or a key that cannot be used.
        MissingError: model-signing is not installed, or the password's variable is not set.
        StepError: Sigstore did not sign.
    """
    signing = _package("signing")
    if not (path / MANIFEST_NAME).is_file():
        raise InputError(f"{path}: no {MANIFEST_NAME} in it, an artifact of lf-export was expected")
    config = signing.Config().set_hashing_config(_hashing())
    _choose(config, signer)
    staged = path / _STAGED
    try:
        with _quiet():
            config.sign(path, staged)
    except ValueError as error:  # a link in the folder
        raise InputError(f"{path}: cannot be signed: {error}") from error
    except OSError as error:
        raise StepError(f"{path}: cannot be signed: {error.strerror or error}") from error
    except Exception as error:
        if not signer.sigstore:
            raise
        raise StepError(f"{path}: Sigstore did not sign: {error}", "sign with a key, which needs no network") from error
    return staged.replace(path / SIGNATURE_NAME)


def check_signer(signer: Signer) -> None:
    """Whether there is something to sign with: the key is read now, hours before it is needed.

    Raises:
        InputError: a key or certificate that cannot be used.
        MissingError: model-signing is not installed, or a password's variable is not set.
    """
    config = _package("signing").Config()
    if not signer.sigstore:
        _choose(config, signer)
    elif signer.identity_token_env:
        _secret(signer.identity_token_env)


def _choose(config: Any, signer: Signer) -> None:
    """Give the signing configuration its signer.

    Raises:
        InputError: a key or a certificate that cannot be used.
    """
    if signer.sigstore:
        token = _secret(signer.identity_token_env) if signer.identity_token_env else None
        config.use_sigstore_signer(identity_token=token, use_ambient_credentials=token is None)
        return
    key = signer.private_key
    if key is None:
        raise InputError("nothing to sign with", "give --private-key, or --sigstore")
    password = _secret(signer.password_env) if signer.password_env else None
    for file in (key, *([signer.certificate] if signer.certificate else []), *signer.chain):
        if not file.is_file():
            raise InputError(f"{file}: no such file, a key or certificate in PEM was expected")
    if signer.certificate is not None and password is not None:
        raise InputError(
            f"{key}: model-signing takes no password for a key with a certificate", "decrypt the key first"
        )
    try:
        if signer.certificate is None:
            # the package's types say text, the library beneath takes bytes alone
            config.use_elliptic_key_signer(private_key=key, password=password and password.encode())
        else:
            config.use_certificate_signer(
                private_key=key, signing_certificate=signer.certificate, certificate_chain=signer.chain
            )
    except TypeError as error:  # encrypted and no password, or the other way round
        raise InputError(
            f"{key}: {str(error).lower().rstrip('.')}", "--password-env names the variable that holds the password"
        ) from error
    except (ValueError, AttributeError) as error:
        raise InputError(
            f"{key}: not a private key that can sign: {_first_line(error)}",
            "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out release.key",
        ) from error


def check_signature(path: Path, trust: Trust) -> list[str]:
    """What is wrong with the signature of the folder; empty where it holds.

    Raises:
        InputError: the key or certificate in `trust` cannot be used.
        MissingError: model-signing is not installed.
    """
    verifying = _package("verifying")
    file = path / SIGNATURE_NAME
    if file.is_symlink() or not file.is_file() or file.stat().st_size > _LARGEST:
        return ["not a regular file with a signature"]
    config = verifying.Config()
    _believe(config, trust)
    with _quiet():
        try:
            config.verify(path, file)
        except Exception as error:  # noqa: BLE001 - a hostile bundle fails in the parser, the library or the mathematics
            return [f"does not hold: {_first_line(error) or type(error).__name__}"]
    unsigned = sorted(_ignored(file) - _UNSIGNED)
    # A signature names what it leaves out, and the package leaves that out when it verifies.
    return [f"leaves out {', '.join(unsigned)}"] if unsigned else []


def _believe(config: Any, trust: Trust) -> None:
    if trust.identity is not None:
        config.use_sigstore_verifier(identity=trust.identity, oidc_issuer=trust.issuer)
        return
    for file in (*([trust.public_key] if trust.public_key else []), *trust.chain):
        if not file.is_file():
            raise InputError(f"{file}: no such file, a key or certificate in PEM was expected")
    try:
        if trust.public_key is not None:
            config.use_elliptic_key_verifier(public_key=trust.public_key)
        else:
            config.use_certificate_verifier(certificate_chain=trust.chain)
    except (ValueError, AttributeError) as error:
        given = trust.public_key or ", ".join(map(str, trust.chain))
        raise InputError(f"{given}: not a key or certificate that can verify: {_first_line(error)}") from error


def _ignored(file: Path) -> set[str]:
    """The paths that the signed statement says were not signed; its signature has been checked by now."""
    bundle = json.loads(file.read_bytes())
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    return set((statement["predicate"].get("serialization") or {}).get("ignore_paths") or ())


def _hashing() -> Any:
    return _package("hashing").Config().set_ignored_paths(paths=[SIGNATURE_NAME, _STAGED], ignore_git_paths=True)


def _package(module: str) -> Any:
    import importlib  # noqa: PLC0415 - an extra

    try:
        return importlib.import_module(f"model_signing.{module}")
    except ImportError as error:
        raise MissingError("the package model-signing is not installed", "pip install 'lf-export[sign]'") from error


def _secret(variable: str) -> str:
    value = os.environ.get(variable)
    if not value:
        raise MissingError(f"the environment variable {variable} is not set, it was to hold a password or token")
    return value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What the package prints does not get into our output, which may be JSON."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0].rstrip(". ")
