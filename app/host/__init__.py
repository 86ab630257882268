"""The processes of one machine: the supervisor, an API process, the bundled Valkey server."""
