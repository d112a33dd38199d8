"""Calibration data: samples, token classes, mixing, the audit, and evaluation suites."""
