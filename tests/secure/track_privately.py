"""One round told to a real tracker, as a run does it, by somebody with a name and private images.

python track_privately.py KIND FOLDER --set data.folder=/srv/patients
"""

from __future__ import annotations

import getpass
import socket
import sys
from pathlib import Path

from fake_run import record_of

from prism_secure.config import load_config
from prism_secure.reporting.progress import Display
from prism_secure.reporting.trackers import Together, tracker

getpass.getuser = lambda: "alice"
socket.gethostname = lambda: "ward-7"
kind, out = sys.argv[1], Path(sys.argv[2])
config = load_config(None, ["privacy.clip=1", "metrics.held_out=private", "data.folder=/srv/patients"])
with tracker(kind, out, config) as told, Display() as shown:
    listener = Together([shown, told])
    listener.started(1, 0, 1)
    listener.round_finished(record_of(config, 1))
