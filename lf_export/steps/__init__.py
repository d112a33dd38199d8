"""The steps of a release: merge, calibrate, quantize, bench, and the run that does them all."""
