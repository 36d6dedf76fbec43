"""Looking after runs: verify, repair, compact."""
