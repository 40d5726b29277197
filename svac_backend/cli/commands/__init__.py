"""What each command takes and what it is for; what it does is imported when it runs, so that help is fast."""
