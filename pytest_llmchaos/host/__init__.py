"""Process identity, private folders, ports and the measurement lock."""
