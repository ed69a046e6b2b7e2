"""The sweeps that the tests of reports look at, too."""

from tests.sweep.report.conftest import snapshot, store, url

__all__ = ["snapshot", "store", "url"]
