"""One run: settings, trials, report folder and progress."""
