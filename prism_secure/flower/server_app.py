"""prism-secure's own `ServerApp`: settings in, the rounds of a recipe out (`recipe.server`).

Run configuration (``flwr run --run-config``):

    folder     the server's enrolment: federation and roster, see `prism_secure.run_folder.enrolment`
    out        the run folder, new or to be continued; what `prism-secure run` writes, without clients/
    recipe     a TOML file; without it the defaults of all settings
    timeout    seconds that a client may take for a stage (120)
    train-timeout   seconds that it may train (3600)
    patience   seconds to wait for enough nodes, and for a round to begin, before the run stops (600)
    own-data   where each client has data of its own, see `prism_secure.flower.client_app`
    test-coins true if the clients' coins are known; then the ledger claims no epsilon
"""

from __future__ import annotations

import contextlib
from logging import INFO
from pathlib import Path

from flwr.app import Context
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp

from prism_crypto import SecureSumError
from prism_privacy import PrivacyError
from prism_secure.config import load_config
from prism_secure.errors import ConfigError, PrismError, public_text
from prism_secure.flower.client_app import check_recipe
from prism_secure.flower.recipe.client import own_data
from prism_secure.flower.recipe.server import Rounds
from prism_secure.reporting.report import write_report
from prism_secure.rounds.components import Components
from prism_secure.rounds.rehearsal import check_components
from prism_secure.run_folder.enrolment import read_membership
from prism_secure.run_folder.folder import RunFolder
from prism_secure.run_folder.history import check_whole

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train; see the module.

    Raises:
        PrismError: what was finished is kept, and the same run configuration continues.
    """
    given = context.run_config
    folder, out = (Path(str(_required(context, name))).expanduser() for name in ("folder", "out"))
    recipe_file = given.get("recipe") or None
    config = load_config(None if recipe_file is None else Path(str(recipe_file)).expanduser())
    federation, roster = read_membership(folder)
    check_recipe(config, roster)
    recipe = own_data(config, given.get("own-data")) or Components(config)
    check_components(recipe)
    with RunFolder(out, config, federation=federation) as run:
        if run.federation != federation:
            raise ConfigError(f"{out} is a run of federation {run.federation!r}, not {federation!r}")
        if run.done:
            check_whole(out)
            log(INFO, "%s is finished already", out)
            return
        rounds = Rounds(
            grid,
            roster,
            recipe,
            run,
            run_config=given,
            timeout=float(given.get("timeout", 120)),
            train_timeout=float(given.get("train-timeout", 3600)),
            patience=float(given.get("patience", 600)),
            test_coins=bool(given.get("test-coins", False)),
        )
        run.start()
        try:
            rounds.run_all()
        except (PrismError, PrivacyError, SecureSumError, OSError) as error:
            with contextlib.suppress(PrismError, OSError):
                if not run.withdraw():
                    run.fail(public_text(error))
                    write_report(out)
            raise
        log(INFO, "Report: %s", write_report(out))


def _required(context: Context, name: str) -> object:
    if name not in context.run_config:
        raise ConfigError(f"the run's configuration must name {name}: flwr run … --run-config '{name}=\"…\"'")
    return context.run_config[name]
