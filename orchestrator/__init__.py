"""The face: HTTP API, XML-RPC face, CLI, Celery application, launcher and telemetry."""
