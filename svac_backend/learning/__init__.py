"""Learning: from generated videos and from what annotators corrected."""
