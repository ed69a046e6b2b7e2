"""``python -m metta MODULE.FUNCTION ...`` runs a Tool, like ``metta-run``."""

from metta.common.runner import run_program

if __name__ == "__main__":
    run_program()
