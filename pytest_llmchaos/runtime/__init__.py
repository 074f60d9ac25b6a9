"""Where the subject runs. One contract, several places."""
