"""The secure sum in any Flower app, and prism-secure's own recipes as one; needs ``prism-secure[flower]``.

For other apps: `secure_sum` on the client's side, `SecureSumGrid` (with a strategy) or `SecureSum` (without)
on the server's. ``prism_secure.flower.client_app:app`` and ``prism_secure.flower.server_app:app`` train the
recipes of ``prism-secure run`` across machines; ``docs/deploy.md`` shows how.
"""

from prism_secure.errors import ConfigError

try:
    import flwr as _flwr  # noqa: F401
except ImportError:
    raise ConfigError("Flower is not installed: pip install 'prism-secure[flower]'") from None

from prism_secure.flower.client import client_folder, secure_sum
from prism_secure.flower.grid import SecureSumGrid
from prism_secure.flower.server import SecureSum

__all__ = ["SecureSum", "SecureSumGrid", "client_folder", "secure_sum"]
