"""
ctsd, a custom threat service for IBM Resilient (QRadar SOAR).

Where to look first: L{ctsd.model} for the words, L{ctsd.interfaces} for the seams,
L{ctsd.scanning.scanner} for what a scan is, L{ctsd.searching} to write a searcher.
"""

__version__ = "0.1.0"
__all__ = ["__version__"]
