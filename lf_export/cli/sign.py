"""`lf-export sign`: a signature over an artifact, and its bill of materials."""

from pathlib import Path

import click

from lf_export.cli.options import FILE, FOLDER, json_option


@click.command(short_help="A signature over an artifact.")
@click.argument("paths", type=FOLDER, nargs=-1, required=True)
@click.option(
    "--private-key", type=FILE, envvar="LF_EXPORT_SIGNING_KEY", show_envvar=True, help="An elliptic-curve key (PEM)."
)
@click.option("--password-env", metavar="NAME", help="The environment variable that holds the key's password.")
@click.option("--certificate", type=FILE, help="The key's certificate (PEM): verified by its chain.")
@click.option("--chain", type=FILE, multiple=True, help="A certificate between it and a root; may be repeated.")
@click.option("--sigstore", is_flag=True, help="Sign with an identity instead, over the network.")
@click.option("--identity-token-env", metavar="NAME", help="With --sigstore: the variable that holds its token.")
@click.option("--report", type=FOLDER, help="A bench folder, whose figures go into the bill of materials.")
@click.option("--no-bom", is_flag=True, help="Write no bill of materials.")
@json_option
def sign(
    paths: tuple[Path, ...],
    private_key: Path | None,
    password_env: str | None,
    certificate: Path | None,
    chain: tuple[Path, ...],
    sigstore: bool,
    identity_token_env: str | None,
    report: Path | None,
    no_bom: bool,
    as_json: bool,
) -> int:
    """Check each of PATHS, write its bill of materials, bom.cdx.json, and sign every file of it into model.sig.

    What does not verify is not signed. Keys and certificates need no network. An edited card is
    signed as it is.
    """
    from lf_export.cli.output import emit
    from lf_export.cli.progress import shown
    from lf_export.steps.release import sign_artifacts
    from lf_export.steps.sign import Signer

    if bool(private_key) == sigstore:
        raise click.UsageError("give one of --private-key and --sigstore")
    signer = Signer(private_key, password_env, certificate, chain, sigstore, identity_token_env)
    with shown():
        signed = sign_artifacts(paths, signer, report=report, bom=not no_bom)
    emit({"signatures": [str(each) for each in signed]}, "\n".join(map(str, signed)), as_json=as_json)
    return 0
