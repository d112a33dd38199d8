"""lf-export: ship a function-calling LLM in every format, and prove that it still calls functions."""

__version__ = "0.1.0"
