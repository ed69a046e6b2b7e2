"""Sweep any program: hyperparameters go in by its command line, environment or a file, and metrics come back."""
