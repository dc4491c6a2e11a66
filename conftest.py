"""What needs Flower, an extra, is collected where Flower is installed."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("flwr") else ["prism_secure/flower/*", "tests/flower/*"]
