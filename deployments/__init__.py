"""What one starts. Prefect's telemetry is off unless the environment says otherwise; set before Prefect is imported."""

import os

os.environ.setdefault("DO_NOT_TRACK", "1")
