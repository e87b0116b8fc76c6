"""Tests that start real daemons and use real parts."""
