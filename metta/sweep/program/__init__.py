"""Sweep any program: it gets hyperparameters by command line, environment or a file, and returns metrics."""
