"""What needs Flower is collected where Flower is: it doesn't install beside the other pinned packages."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("flwr") else ["prism_secure/flower/*", "tests/flower/*"]
