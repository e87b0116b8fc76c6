"""
C{ctsd.toml}: L{ctsd.config.loading} makes one frozen L{ctsd.config.settings.Settings} of it, or an
error that names file, line and key.
"""
