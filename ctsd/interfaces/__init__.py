"""
The seams of ctsd: every zope interface, its contract in its docstring.

Methods are called with keywords (C{verifyObject} checks arity, not names). A method that returns a
C{Deferred} may be given one that has fired already; all of them run in the reactor's thread.
"""
