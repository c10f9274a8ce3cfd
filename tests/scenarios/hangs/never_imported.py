"""A module with work to do on import."""

import time

time.sleep(900)  # HERE
