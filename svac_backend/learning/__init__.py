"""Learning from annotators' corrections and from generated videos."""
