"""Sweeps as HTML: the parts of a page, and a report that opens offline."""
