"""The searchers that ship with ctsd: one source each. They import C{ctsd.searching} alone."""
