"""Shows sweeps in the terminal, as pages and as plots. It presents the conclusions of `metta.sweep.analysis`."""
