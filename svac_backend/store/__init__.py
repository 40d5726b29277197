"""All state that must survive a restart. Free of torch."""
