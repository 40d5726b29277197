"""Label Studio's API: connection, client, media, and what its refusals mean."""
