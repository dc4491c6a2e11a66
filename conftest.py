"""What needs Flower, an extra, is collected where Flower is installed."""

from importlib.util import find_spec

# prism_privacy loads it with the first call that needs it, which would count against Hypothesis' deadline.
import scipy.special  # noqa: F401

collect_ignore_glob = [] if find_spec("flwr") else ["prism_secure/flower/*", "tests/flower/*"]
