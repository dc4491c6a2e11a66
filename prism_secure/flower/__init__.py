"""The secure sum in any Flower app, and prism-secure's own recipes as one; needs the extra ``flower``.

For other apps: `secure_sum` on the client's side, `SecureSumGrid` (with a strategy) or `SecureSum` (without)
on the server's. ``prism_secure.flower.client_app:app`` and ``prism_secure.flower.server_app:app`` train the
recipes of ``prism-secure run`` across machines; ``docs/deploy.md`` shows how.

    secure_aggregation        the secure sum for any app: the three names above, and how it travels
    recipe                    a recipe's client, server and messages
    client_app, server_app    Flower's side of a recipe's client and server
"""

from prism_secure.errors import MissingPackage, pip_install

try:
    import flwr as _flwr  # noqa: F401
except ImportError:
    raise MissingPackage(f"Flower is not installed: {pip_install('flower')}") from None

from prism_secure.flower.secure_aggregation.client import client_folder, secure_sum
from prism_secure.flower.secure_aggregation.grid import SecureSumGrid
from prism_secure.flower.secure_aggregation.server import SecureSum

__all__ = ["SecureSum", "SecureSumGrid", "client_folder", "secure_sum"]
