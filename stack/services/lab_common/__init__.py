"""Settings, log lines and signal handling of the lab's services."""
