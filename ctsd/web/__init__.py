"""HTTP: the protocol routes and our own Request."""
