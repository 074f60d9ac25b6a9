"""Places where the subject runs, behind one contract."""
