"""What is known of a sweep: the optimiser's model of it, and the conclusions that follow. `metta.sweep.report` shows it."""
