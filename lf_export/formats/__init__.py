"""The formats that a checkpoint can be exported to: one module and one line of `FORMATS` each."""
