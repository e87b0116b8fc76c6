"""Tests of ctsd; run with trial."""
