from reference.errors import ReferenceUnavailable
from reference.loader import build, identity, training_settings
from reference.recorded import load_trace

__all__ = ["ReferenceUnavailable", "build", "identity", "load_trace", "training_settings"]
