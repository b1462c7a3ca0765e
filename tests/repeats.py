"""How often what is tried at random moments is tried: `make test-stress` says more."""

import os

KILLS = int(os.environ.get("C2LLM_KILLS", "5"))
DAMAGES = 4 * KILLS
