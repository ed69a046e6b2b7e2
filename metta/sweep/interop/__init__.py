"""Protein in other people's tools, and their search spaces in ours. Each module needs its own tool's package."""
