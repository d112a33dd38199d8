"""Conversations from hand-written seeds: see `calibration/generate.py`."""
