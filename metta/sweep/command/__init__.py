"""The former home of `metta.sweep.program`. Stored sweeps and users' code name these modules, so they stay."""
