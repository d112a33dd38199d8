"""`lf-export verify`: whether what lies there is what was made."""

from pathlib import Path

import click

from lf_export.cli.options import FILE, FOLDER, json_option, threads_option


@click.command(short_help="Whether what lies there is what was made.")
@click.argument("paths", type=FOLDER, nargs=-1, required=True)
@click.option("--inputs", type=FOLDER, multiple=True, help="A folder or file that went in; may be repeated.")
@click.option("--public-key", type=FILE, help="Check the signature with this key (PEM).")
@click.option(
    "--certificate-chain", type=FILE, multiple=True, help="Check it by these root certificates (PEM); may be repeated."
)
@click.option("--identity", help="Check it with Sigstore, over the network: who is to have signed.")
@click.option("--issuer", help="With --identity: who vouches for it, as a URL.")
@click.option("--deep", is_flag=True, help="Also hold a sample of the weights against their model's.")
@click.option("--model", type=FOLDER, help="With --deep: that model's folder [default: the run folder's merged].")
@click.option("--sample", type=click.IntRange(min=1), default=16, show_default=True, help="With --deep: tensors.")
@click.option("--seed", type=int, default=0, show_default=True, help="With --deep: which.")
@threads_option
@json_option
def verify(
    paths: tuple[Path, ...],
    inputs: tuple[Path, ...],
    public_key: Path | None,
    certificate_chain: tuple[Path, ...],
    identity: str | None,
    issuer: str | None,
    deep: bool,
    model: Path | None,
    sample: int,
    seed: int,
    threads: int,
    as_json: bool,
) -> int:
    """Check each of PATHS, a merged, calibration, artifact, bench or run folder, against its manifest.

    Every file is read: what was changed is named, where possible with the tensor, and what is missing, more, or a link.
    In a run folder also that each artifact was made of the merged model and the calibration beside it. The exit status
    is 3 where anything is wrong.
    """
    from lf_export.cli.output import emit
    from lf_export.cli.progress import shown
    from lf_export.errors import InputError
    from lf_export.steps.sign import Trust
    from lf_export.steps.verify import problems_of, results_text
    from lf_export.steps.verify_paths import Deep, verify_paths

    if sum(map(bool, (public_key, certificate_chain, identity))) > 1 or bool(identity) != bool(issuer):
        raise click.UsageError("give one of --public-key, --certificate-chain, or --identity with --issuer")
    believed = public_key or certificate_chain or identity
    trust = Trust(public_key, certificate_chain, identity, issuer) if believed else None
    with shown():
        results = verify_paths(paths, inputs, trust, Deep(model, sample, seed, threads) if deep else None)
    emit({"results": [each.to_json() for each in results]}, results_text(results), as_json=as_json)
    if problems := list(problems_of(results)):
        raise InputError.of(problems)
    return 0
