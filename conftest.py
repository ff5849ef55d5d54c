"""Settings that every test shares."""

from hypothesis import HealthCheck, settings

# How fast a machine makes examples says nothing of what is tested.
settings.register_profile("llmesh", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("llmesh")
