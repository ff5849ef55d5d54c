"""Serve models: `python -m model_server`, in the environment that `make model` makes.

An engine's process imports this too, first of all, as Python's multiprocessing
has it: so nothing is imported here that an engine does without.
"""

from __future__ import annotations

import gc
import os

from model_server.engine_process import end_with

if __name__ == "__mp_main__":
    # Before vLLM's plugins, which come minutes later where the server is gone: it is waited for first. If it was gone
    # before this, only they see it.
    end_with(os.getppid())

# What is imported from here on stays: to look through it for garbage after each 700 objects takes a seventh of a start.
gc.set_threshold(50_000)

if __name__ == "__main__":
    from model_server.serving import main

    main()
