"""Tests of ctsd; run with trial."""

from hypothesis import HealthCheck, settings

# How long an example takes says nothing here: machines that run tests may be slow and busy.
settings.register_profile(
    "ctsd", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ctsd")
