"""Requests to servers of others: limits, addresses that may be asked, secrets, proxy."""
