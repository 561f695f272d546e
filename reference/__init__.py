from reference.errors import ReferenceUnavailable
from reference.loader import build, build_pyramid, identity, training_settings
from reference.recorded import load_trace

__all__ = [
    "ReferenceUnavailable",
    "build",
    "build_pyramid",
    "identity",
    "load_trace",
    "training_settings",
]
