"""Try an artifact by hand: a page on this machine that asks it, and shows what its call is worth."""

from lf_export.trial.artifact import Artifact, open_artifacts
from lf_export.trial.serve import serve
from lf_export.trial.trial import Trial

__all__ = ["Artifact", "Trial", "open_artifacts", "serve"]
