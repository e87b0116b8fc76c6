"""The store: scans, threats and what processes share, on SQLite."""
