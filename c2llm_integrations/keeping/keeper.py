"""One thread that keeps checkouts current while questions come, and lets go of memory when none do."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from c2llm_integrations.errors import C2LLMError
from c2llm_integrations.keeping.apart import Apart
from c2llm_integrations.keeping.checkout import Checkout

# A run that failed is tried again after so long, if somebody asks.
RETRY_SECONDS = 5.0


class Keeper:
    """Indexes checkouts that are not current, one after the other, whenever `wake` is called and once at first."""

    def __init__(self, checkouts: Sequence[Checkout], index: bool, idle_seconds: float) -> None:
        """`index=False` only lets go of memory; `idle_seconds`: of a checkout that nobody has asked for so long."""
        self._checkouts = checkouts
        self._index = index
        self._idle_seconds = idle_seconds
        self._awake = threading.Event()
        self._stopped = threading.Event()
        self._apart: Apart | None = None
        self._thread = threading.Thread(target=self._run, name="c2llm-keeper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._awake.set()
        self._thread.start()

    def wake(self) -> None:
        """Look at the checkouts soon."""
        self._awake.set()

    def stop(self, seconds: float) -> bool:
        """End soon, a run under way included; say whether that took at most so many seconds."""
        self._stopped.set()
        self._awake.set()
        if self._apart is not None:
            self._apart.stop()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopped.is_set():
            if self._awake.wait(self._idle_seconds / 2):
                self._awake.clear()
                kept = [self._keep(checkout) for checkout in self._checkouts]
                if not all(kept):
                    self._stopped.wait(RETRY_SECONDS)
            for checkout in self._checkouts:
                if time.monotonic() > checkout.used + self._idle_seconds:
                    checkout.release()

    def _keep(self, checkout: Checkout) -> bool:
        """Bring one up to date; say whether that went well."""
        try:
            found = checkout.look()
            if found is None:
                checkout.problem = ""
            checkout.warm()
            if found is None or not self._index or self._stopped.is_set():
                return True
            self._apart = Apart(checkout)
            if self._stopped.is_set():
                self._apart.stop()
            is_done = self._apart.finish()
            checkout.warm()
            return is_done
        except (C2LLMError, OSError) as error:
            checkout.problem = f"indexing failed: {error}"
            return False
