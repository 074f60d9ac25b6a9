"""Files of a run: journal, samples and ledger."""
