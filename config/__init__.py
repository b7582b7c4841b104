"""Settings, the Celery configuration, ejabberd's configuration with its bridge module, and process files."""
