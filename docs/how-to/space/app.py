"""A Hugging Face Space in which anyone can try an artifact of lf-export."""

import os
import tempfile
from pathlib import Path

from lf_export.trial import Trial, open_artifacts, serve


def artifact() -> Path:
    """The artifact: the folder that ARTIFACT names, else the hub's repository MODEL_REPO, fetched once."""
    if local := os.environ.get("ARTIFACT"):
        return Path(local)
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - only where there is a hub

    return Path(snapshot_download(os.environ["MODEL_REPO"]))


def trial(workdir: Path) -> Trial:
    """The artifact, loaded; a free Space has two processors."""
    return Trial(*open_artifacts([artifact()], dialect=None, runtimes=[None], threads=2, workdir=workdir))


def main() -> None:
    """Serve the page where a Space expects it."""
    with tempfile.TemporaryDirectory() as scratch:
        serve(trial(Path(scratch)), "0.0.0.0", 7860, ready=print)  # noqa: S104 - a Space is meant to be reached


if __name__ == "__main__":
    main()
