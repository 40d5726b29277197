"""The drill: the real server and worker under attacks, faults, load and growth; what was lost is counted."""
