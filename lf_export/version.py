"""The version, apart from the package's own functions, so that everything can say it."""

__version__ = "0.1.0"
