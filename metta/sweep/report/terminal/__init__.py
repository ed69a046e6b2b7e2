"""Sweeps in the terminal."""
