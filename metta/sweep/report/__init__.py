"""Shows sweeps: in the terminal, as pages, as plots. It words and draws what `metta.sweep.analysis` concludes."""
