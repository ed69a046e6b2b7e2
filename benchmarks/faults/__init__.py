"""Sweeps of tiny trials under real faults, to check that no finished trial is lost and none runs twice."""
