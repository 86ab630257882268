"""The embedded store in one folder or one tar file, made while the service runs, and put back.

Inside: `manifest.json`, `gradsmith.db` as it was at one moment, and `datasets/`. Valkey's file is not: what it holds is
rung and streamed again from the database. A backup appears whole or not at all.
"""

from app.backup.make import back_up
from app.backup.manifest import BackupError, Manifest
from app.backup.restore import Restored, restore

__all__ = ["BackupError", "Manifest", "Restored", "back_up", "restore"]
