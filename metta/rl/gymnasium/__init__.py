"""Training on environments of Gymnasium and PettingZoo."""
