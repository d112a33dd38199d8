"""What turns artifacts into a release: checked, with a bill of materials, signed."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lf_export.errors import InputError
from lf_export.progress import say
from lf_export.recipe.verdict import SignRecipe
from lf_export.report.bom import BOM_NAME
from lf_export.report.card import CARD_NAME
from lf_export.steps.bom import write_bom
from lf_export.steps.sign import SIGNATURE_NAME, Signer, check_signer, sign_folder
from lf_export.steps.verify import verify_folder

KEY_VARIABLE = "LF_EXPORT_SIGNING_KEY"
_REPLACED = (CARD_NAME, BOM_NAME)


def sign_artifacts(
    paths: Sequence[Path], signer: Signer, *, report: Path | None = None, bom: bool = True
) -> list[Path]:
    """Check, describe and sign artifacts; what does not verify stops before anything is signed.

    Args:
        paths: artifact folders.
        signer: who signs.
        report: the bench's folder, for the bill of materials.
        bom: whether one is written.

    Returns:
        The signatures' files.

    Raises:
        InputError: an artifact that does not verify, or a key that cannot be used.
        MissingError: a package is not installed.
    """
    problems = []
    for path in paths:
        # an edited card is what the signature is for; a bill of materials is written anew
        problems += [str(each) for each in verify_folder(path).problems if Path(each.file).name not in _REPLACED]
    if problems:
        raise InputError.of(problems, "nothing was signed")
    signed = []
    for path in paths:
        if bom:
            write_bom(path, report)
        signed.append(sign_folder(path, signer))
    return signed


def signer_of(wanted: SignRecipe, folder: Path) -> Signer:
    """Who signs as a recipe says, its files relative to the recipe's folder.

    Raises:
        InputError: nothing to sign with, or a file that is not there.
        MissingError: model-signing is not installed, or a password's variable is not set.
    """
    key = wanted.private_key or (None if wanted.sigstore else os.environ.get(KEY_VARIABLE))
    if bool(key) == wanted.sigstore:
        raise InputError(f"sign: expected one of private_key, {KEY_VARIABLE} in the environment, and sigstore")
    signer = Signer(
        folder / key if key else None,
        wanted.password_env,
        folder / wanted.certificate if wanted.certificate else None,
        tuple(folder / each for each in wanted.chain),
        wanted.sigstore,
        wanted.identity_token_env,
    )
    check_signer(signer)
    return signer


def unsign(paths: Iterable[Path]) -> None:
    """Take signatures away: of what is judged again, which writes its card, and of what did not pass this time."""
    for path in paths:
        (path / SIGNATURE_NAME).unlink(missing_ok=True)


def sign_judged(
    artifacts: Mapping[str, Path], verdicts: Mapping[str, str], signer: Signer, report: Path | None, *, unjudged: bool
) -> list[Path]:
    """Sign the artifacts of a run that passed, and with `unjudged` those without a verdict; says which it leaves out.

    Args:
        artifacts: folders by name.
        verdicts: of those that were judged.
        signer: who signs.
        report: the bench's folder.
        unjudged: whether what nobody judged is signed too. What failed, or could not be told, is not.
    """
    chosen = []
    for name, path in artifacts.items():
        verdict = verdicts.get(name)
        if verdict == "PASS" or (verdict is None and unjudged):
            chosen.append(path)
        else:
            say(f"{name}: not signed: {verdict or 'not judged'}")
            unsign([path])
    return sign_artifacts(chosen, signer, report=report) if chosen else []
