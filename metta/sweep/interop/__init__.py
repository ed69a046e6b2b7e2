"""Protein in other tools, and search spaces of other tools here. Each module needs the package of its tool."""
