"""Three agents behind one HTTP contract."""
