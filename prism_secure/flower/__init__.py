"""The secure sum in any Flower app, and prism-secure's own recipes as one; needs ``prism-secure[flower]``.

For other apps: `secure_sum` on the client's side, `SecureSumGrid` (with a strategy) or `SecureSum` (without)
on the server's. ``prism_secure.flower.client_app:app`` and ``prism_secure.flower.server_app:app`` train the
recipes of ``prism-secure run`` across machines; ``docs/deploy.md`` shows how.

    sum_client, sum_server, sum_grid    the secure sum for any app: the three names above
    sum_messages                        how its messages travel in Flower's
    sum_process, sum_process_link       the client's part of a session, in a process of its own
    client_app, recipe_client           a recipe's client: Flower's side of it, and what it does
    server_app, recipe_server           the same of its server
"""

from prism_secure.errors import ConfigError

try:
    import flwr as _flwr  # noqa: F401
except ImportError:
    raise ConfigError("Flower is not installed: pip install 'prism-secure[flower]'") from None

from prism_secure.flower.secure_sum.client import client_folder, secure_sum
from prism_secure.flower.secure_sum.grid import SecureSumGrid
from prism_secure.flower.secure_sum.server import SecureSum

__all__ = ["SecureSum", "SecureSumGrid", "client_folder", "secure_sum"]
