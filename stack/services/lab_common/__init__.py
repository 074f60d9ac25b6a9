"""What the lab's services share: settings, log lines, the end by a signal. Standard library only."""
