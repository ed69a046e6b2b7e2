"""The analysis of a sweep: the optimiser's model of it, and conclusions. `metta.sweep.report` shows them."""
